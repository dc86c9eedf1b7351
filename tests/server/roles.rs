//! Roles: what each may do. One row for each method and path; a method without a row fails the test.

use std::collections::BTreeSet;

use desktop_images::contract;
use http::Method;
use serde_json::{Value, json};
use test_support::{image_id, text};

use super::identity::Guarded;

/// Method, path and body; then the outcome for an admin of another folder, and a viewer, an editor and an admin of the
/// folder `f`: A allowed, D PERMISSION_DENIED, H hidden, which is NOT_FOUND in the words for what does not exist.
/// `{compute}`, `{desktop}` and `{operation}` are fresh ones in `f`, `{hidden}` an image in a folder of which nobody
/// of them knows, `{name}` is a fresh name.
const TABLE: &str = r#"
clouddesktop.v1.api.DesktopImageService/List GET /cloud-desktop/v1/images?folderId=f {} DAAA
clouddesktop.v1.api.DesktopImageService/List GET /cloud-desktop/v1/images?folderId=nosuch {} DDDD
clouddesktop.v1.api.DesktopImageService/Get GET /cloud-desktop/v1/images/{desktop} {} HAAA
clouddesktop.v1.api.DesktopImageService/Copy POST /cloud-desktop/v1/images:copy {"folderId":"f","name":"{name}","imageId":"{compute}"} DDAA
clouddesktop.v1.api.DesktopImageService/Copy POST /cloud-desktop/v1/images:copy {"folderId":"f","name":"{name}","imageId":"{hidden}"} DDHH
clouddesktop.v1.api.DesktopImageService/Copy POST /cloud-desktop/v1/images:copy {"folderId":"nosuch","name":"{name}","imageId":"{compute}"} DDDD
clouddesktop.v1.api.DesktopImageService/CopyFromDesktop POST /cloud-desktop/v1/images:copyFromDesktop {"folderId":"f","name":"{name}","desktopId":"d"} AAAA
clouddesktop.v1.api.DesktopImageService/Update PATCH /cloud-desktop/v1/images/{desktop} {"updateMask":"description","description":"d"} HDAA
clouddesktop.v1.api.DesktopImageService/Delete DELETE /cloud-desktop/v1/images/{desktop} {} HDAA
compute.v1.ImageService/List GET /compute/v1/images?folderId=f {} DAAA
compute.v1.ImageService/Get GET /compute/v1/images/{compute} {} HAAA
compute.v1.ImageService/GetLatestByFamily GET /compute/v1/images:latestByFamily?folderId=f&family=none {} DAAA
compute.v1.ImageService/Create POST /compute/v1/images {"folderId":"f","name":"{name}","imageId":"{compute}"} DDAA
compute.v1.ImageService/Create POST /compute/v1/images {"folderId":"f","name":"{name}","imageId":"{hidden}"} DDHH
compute.v1.ImageService/Create POST /compute/v1/images {"folderId":"f","name":"{name}","uri":"file:///no/such"} DDAA
compute.v1.ImageService/Update PATCH /compute/v1/images/{compute} {"updateMask":"description","description":"d"} HDAA
compute.v1.ImageService/Delete DELETE /compute/v1/images/{compute} {} HDAA
compute.v1.ImageService/ListOperations GET /compute/v1/images/{compute}/operations {} HAAA
operation.OperationService/Get GET /operations/{operation} {} HAAA
operation.OperationService/Cancel POST /operations/{operation}:cancel {} HDAA
operation.OperationService/Cancel GET /operations/{operation}:cancel {} HDAA
desktopimages.v1.OperationWatchService/Watch GET /operations/{operation}:watch {} HAAA
desktopimages.v1.QuotaService/List GET /desktop-images/v1/quotas?folderId=f {} DDDA
desktopimages.v1.QuotaService/List GET /desktop-images/v1/quotas {} DDDD
desktopimages.v1.QuotaService/Set PUT /desktop-images/v1/quotas {"folderId":"f","name":"vdi.desktopImages.count","limit":"1000"} DDDA
desktopimages.v1.QuotaService/Set PUT /desktop-images/v1/quotas {"name":"vdi.desktopImages.count","limit":"1000"} DDDD
desktopimages.v1.AuditService/Read GET /desktop-images/v1/auditEvents?folderId=f {} DDDA
desktopimages.v1.AuditService/Read GET /desktop-images/v1/auditEvents {} DDDD
desktopimages.v1.TokenService/Create POST /desktop-images/v1/tokens {} DDDD
desktopimages.v1.TokenService/List GET /desktop-images/v1/tokens {} DDDD
desktopimages.v1.TokenService/Revoke DELETE /desktop-images/v1/tokens/x {} DDDD
desktopimages.v1.AccessService/Grant PUT /desktop-images/v1/access {"folderId":"f","subject":"cert:a","role":"viewer"} DDDA
desktopimages.v1.AccessService/Grant PUT /desktop-images/v1/access {"subject":"cert:a","role":"viewer"} DDDD
desktopimages.v1.AccessService/Grant PUT /desktop-images/v1/access {"folderId":"nosuch","subject":"cert:a","role":"viewer"} DDDD
desktopimages.v1.AccessService/Revoke POST /desktop-images/v1/access:revoke {"folderId":"f","subject":"cert:standing"} DDDA
desktopimages.v1.AccessService/Revoke POST /desktop-images/v1/access:revoke {"subject":"cert:standing"} DDDD
desktopimages.v1.AccessService/List GET /desktop-images/v1/access?folderId=f {} DDDA
desktopimages.v1.AccessService/List GET /desktop-images/v1/access {} DDDD
desktopimages.v1.ServiceAccountService/Create POST /desktop-images/v1/serviceAccounts {"name":"n"} DDDD
desktopimages.v1.ServiceAccountService/List GET /desktop-images/v1/serviceAccounts {} DDDD
desktopimages.v1.ServiceAccountService/Delete DELETE /desktop-images/v1/serviceAccounts/x {} DDDD
desktopimages.v1.ServiceAccountService/CreateKey POST /desktop-images/v1/serviceAccounts/x/keys {} DDDD
desktopimages.v1.ServiceAccountService/ListKeys GET /desktop-images/v1/serviceAccounts/x/keys {} DDDD
desktopimages.v1.ServiceAccountService/DeleteKey DELETE /desktop-images/v1/serviceAccountKeys/x {} DDDD
desktopimages.v1.SignedUrlService/Create POST /desktop-images/v1/signedUrls {"imageId":"{desktop}"} HAAA
desktopimages.v1.SignedUrlService/Create POST /desktop-images/v1/signedUrls {"operationId":"{operation}"} HAAA
desktopimages.v1.SignedUrlService/Create POST /desktop-images/v1/signedUrls {"auditEvents":{"folderId":"f"}} DDDA
desktopimages.v1.SignedUrlService/RotateKey POST /desktop-images/v1/urlKeys:rotate {} DDDD
desktopimages.v1.SignedUrlService/ListKeys GET /desktop-images/v1/urlKeys {} DDDD
desktopimages.v1.SignedUrlService/RevokeKey DELETE /desktop-images/v1/urlKeys/x {} DDDD
iam.v1.IamTokenService/Create POST /iam/v1/tokens {} AAAA
iam.v1.IamTokenService/Revoke POST /iam/v1/tokens:revoke {} AAAA
upload POST /compute/v1/images:upload?folderId=f&name={name} {} DDAA
download GET /cloud-desktop/v1/images/{desktop}:download {} HAAA
"#;

/// Methods that everybody may call, whatever is granted.
const FOR_ALL: &str = "yandex.cloud.endpoint.ApiEndpointService";

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_do_what_the_table_says_and_nothing_else() {
    let guarded = Guarded::start().await;
    let rows = TABLE.lines().filter(|line| !line.is_empty());
    let rows: Vec<Vec<&str>> = rows.map(|line| line.split(' ').collect()).collect();
    let tried: BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    let pool = contract::descriptor_pool();
    let services = contract::services().filter(|service| *service != FOR_ALL);
    for service in services.filter_map(|name| pool.get_service_by_name(name)) {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            let short = name.strip_prefix("yandex.cloud.").unwrap_or(&name);
            assert!(tried.contains(short), "{short} is not in the table");
        }
    }
    let base = guarded.compute_image("f", "base").await;
    let hidden = guarded.compute_image("hidden", "base").await;
    let callers = [
        guarded.token_with("another", "admin").await,
        guarded.token_with("f", "viewer").await,
        guarded.token_with("f", "editor").await,
        guarded.token_with("f", "admin").await,
    ];
    let mut number = 0;
    for row in &rows {
        let [name, method, path, body, outcomes] = row[..] else {
            panic!("{row:?}");
        };
        for (caller, wanted) in callers.iter().zip(outcomes.chars()) {
            number += 1;
            let mut request = format!("{path} {body}").replace("{name}", &format!("n{number}"));
            request = request.replace("{hidden}", &hidden);
            if request.contains("{compute}") {
                let create =
                    json!({"folderId": "f", "name": format!("c{number}"), "imageId": base});
                let path = "/compute/v1/images";
                let made = guarded.ask(Method::POST, path, create).await;
                request = request.replace("{compute}", &image_id(&made));
            }
            if request.contains("{desktop}") || request.contains("{operation}") {
                let copy = json!({"folderId": "f", "name": format!("d{number}"), "imageId": base});
                let path = "/cloud-desktop/v1/images:copy";
                let made = guarded.ask(Method::POST, path, copy).await;
                request = request.replace("{desktop}", &image_id(&made));
                request = request.replace("{operation}", text(&made, "id"));
            }
            guarded.grant("cert:standing", "f", "viewer").await;
            let (path, body) = request.split_once(' ').unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            let verb: Method = method.parse().unwrap();
            let (status, reply) = guarded.send(caller, verb, path, &body).await;
            let message = reply["message"].as_str().unwrap_or_default();
            let outcome = match status {
                403 => 'D',
                404 if message.ends_with("not found") => 'H',
                401 => panic!("{name}: {reply}"),
                _ => 'A',
            };
            assert_eq!(outcome, wanted, "{name} {path} {body}: {status} {reply}");
            if outcome == 'D' && request.contains("nosuch") {
                assert_eq!(message, "Permission denied to folder nosuch", "{name}");
            }
        }
    }
}
