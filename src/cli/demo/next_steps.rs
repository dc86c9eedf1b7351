//! The lines that a person may paste after the demo.

use super::super::endpoint::Endpoint;

/// The ids that the lines name.
pub(crate) struct Ids<'a> {
    /// How this program was started.
    pub program: &'a str,
    pub endpoint: &'a Endpoint,
    pub folder: &'a str,
    pub compute_image: &'a str,
    pub desktop_image: &'a str,
    pub operation: &'a str,
}

/// The lines, in another terminal as they are.
pub(crate) fn text(ids: &Ids<'_>) -> String {
    let Ids {
        program,
        endpoint,
        folder,
        compute_image,
        desktop_image,
        operation,
    } = ids;
    let url = endpoint.to_string();
    let address = url.trim_start_matches("http://");
    let images = format!("{url}/cloud-desktop/v1/images");
    format!(
        r#"
7. To go on, in another terminal:

# Copy again, list, look at an operation
curl -X POST {images}:copy -H 'Content-Type: application/json' \
  -d '{{"folderId": "{folder}", "name": "my-copy", "imageId": "{compute_image}"}}'
curl '{images}?folderId={folder}'
curl {url}/operations/{operation}

# The bytes: download them, or look into them where they are
curl -OJ {images}/{desktop_image}:download
qemu-img info {images}/{desktop_image}:download

# The same over gRPC
grpcurl -plaintext {address} list
grpcurl -plaintext -d '{{"folder_id": "{folder}"}}' {address} \
  yandex.cloud.clouddesktop.v1.api.DesktopImageService/List
grpcurl -plaintext -d '{{"folder_id": "{folder}", "name": "another-copy", "image_id": "{compute_image}"}}' \
  {address} yandex.cloud.clouddesktop.v1.api.DesktopImageService/Copy

# Or with this program
{program} --endpoint {url} image list --folder-id {folder}

Serving until Ctrl-C.
"#
    )
}
