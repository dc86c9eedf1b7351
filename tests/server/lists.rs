//! Lists of both kinds of images, over both transports: order, filters, pages.

use std::cmp::Ordering;

use futures_util::future::join_all;
use serde_json::{Value, json};
use test_support::{Caller, Disk, Fill, Method, SlowUpload, TestServer, image_id, text};
use tonic::Code;

/// The orders that the contract names, with what they compare and whether the other way round.
const ORDERS: [(&str, &[(&str, bool)]); 15] = [
    ("", &[("id", false)]),
    ("name", &[("name", false)]),
    ("name asc", &[("name", false)]),
    ("name desc", &[("name", true)]),
    ("created_at", &[("createdAt", false)]),
    ("createdAt", &[("createdAt", false)]),
    ("created_at desc", &[("createdAt", true)]),
    ("createdAt ASC", &[("createdAt", false)]),
    ("status", &[("status", false), ("id", false)]),
    ("status DESC", &[("status", true), ("id", true)]),
    ("status, name", &[("status", false), ("name", false)]),
    (
        "status desc, name asc",
        &[("status", true), ("name", false)],
    ),
    ("status,name desc", &[("status", false), ("name", true)]),
    (
        "status asc , createdAt desc",
        &[("status", false), ("createdAt", true)],
    ),
    (
        "name desc,created_at,status",
        &[("name", true), ("createdAt", false)],
    ),
];

fn compare(left: &Value, right: &Value, column: &str) -> Ordering {
    let key = |image: &Value| match (column, text(image, column)) {
        // Nanoseconds in full, since zeros at the end are left out.
        ("createdAt", time) => {
            let time = time.trim_end_matches('Z');
            let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
            format!("{seconds}.{fraction:0<9}")
        }
        ("status", "CREATING") => "1".to_owned(),
        ("status", _) => "2".to_owned(),
        (_, text) => text.to_owned(),
    };
    key(left).cmp(&key(right))
}

fn sorted(mut images: Vec<Value>, order: &[(&str, bool)]) -> Vec<Value> {
    images.sort_by(|left, right| {
        let mut ordering = Ordering::Equal;
        for (column, descending) in order {
            let next = compare(left, right, column);
            ordering = ordering.then(if *descending { next.reverse() } else { next });
        }
        ordering
    });
    images
}

fn items(page: &Value) -> Vec<Value> {
    let items = page.get("desktopImages").or(page.get("images"));
    items.and_then(Value::as_array).expect("a list").clone()
}

fn ids(images: &[Value]) -> Vec<&str> {
    images.iter().map(|image| text(image, "id")).collect()
}

/// All pages of a query.
async fn all(caller: &Caller, method: Method, query: Value) -> Vec<Value> {
    let mut found = Vec::new();
    let mut query = query;
    loop {
        let page = caller.call(method, query.clone()).await.unwrap();
        let size = query["pageSize"].as_u64().unwrap_or(100) as usize;
        let token = text(&page, "nextPageToken").to_owned();
        let images = items(&page);
        assert!(token.len() <= 100, "{token}");
        // Only the last page may be short, and it is not empty unless the list is.
        assert!(images.len() == size || token.is_empty(), "{page}");
        assert!(!images.is_empty() || found.is_empty(), "{page}");
        found.extend(images);
        if token.is_empty() {
            return found;
        }
        query["pageToken"] = json!(token);
    }
}

async fn copies(server: &TestServer, folder: &str, names: &[String]) -> Vec<String> {
    let source = server
        .compute_image("sources", "", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    join_all(
        names
            .iter()
            .map(|name| server.copied(folder, name, &source)),
    )
    .await
}

#[tokio::test]
async fn every_order_in_pages_of_every_size() {
    let server = TestServer::start().await;
    let names = ["b", "ä", "B", "a", "ab", "😀", "\u{ffff}", "a b", "10", "9"].map(str::to_owned);
    copies(&server, "f", &names).await;
    copies(&server, "other", &names[..1]).await;
    let disk = Disk::mbr(1, Fill::Random(1));
    let source = server.compute_image("sources", "", &disk).await;
    for name in ["c", "", "a", "", "b-1", "b"] {
        let request = json!({"folderId": "f", "name": name, "imageId": source});
        server.ask(Method::Create, request).await;
    }
    let unready = SlowUpload::start(&server, "f", "bb", &disk[..1000]).await;
    for (method, count) in [(Method::DesktopList, 10), (Method::ComputeList, 7)] {
        let images = all(&server.callers()[0], method, json!({"folderId": "f"})).await;
        assert_eq!(images.len(), count);
        for caller in server.callers() {
            for (order, columns) in ORDERS {
                let mut columns = columns.to_vec();
                // The id decides last, the way of the last column.
                columns.push(("id", columns[columns.len() - 1].1));
                let expected = sorted(images.clone(), &columns);
                for size in [1, 3, count - 1, count, count + 1] {
                    let query = json!({"folderId": "f", "orderBy": order, "pageSize": size});
                    let found = all(&caller, method, query).await;
                    assert_eq!(ids(&found), ids(&expected), "{order:?} by {size}");
                }
            }
        }
    }
    unready.hang_up();
}

#[tokio::test]
async fn a_page_has_100_images_where_no_size_is_asked_for() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..101).map(|number| format!("image {number}")).collect();
    copies(&server, "f", &names).await;
    for caller in server.callers() {
        for query in [
            json!({"folderId": "f"}),
            json!({"folderId": "f", "pageSize": "0"}),
        ] {
            let page = caller.call(Method::DesktopList, query).await.unwrap();
            assert_eq!(items(&page).len(), 100);
            assert_ne!(page["nextPageToken"], "");
        }
        let query = json!({"folderId": "f", "pageSize": 1000});
        let page = caller.call(Method::DesktopList, query).await.unwrap();
        assert_eq!(
            (items(&page).len(), &page["nextPageToken"]),
            (101, &json!(""))
        );
        let page = caller
            .call(Method::DesktopList, json!({"folderId": "none"}))
            .await
            .unwrap();
        assert_eq!(page, json!({"desktopImages": [], "nextPageToken": ""}));
    }
}

#[tokio::test]
async fn tokens_are_short_whatever_the_names() {
    let server = TestServer::start().await;
    let names: Vec<String> = (0..4)
        .map(|number| format!("{}{number}", "😀".repeat(49)))
        .collect();
    copies(&server, "папка", &names).await;
    for caller in server.callers() {
        for (order, _) in ORDERS {
            let query = json!({"folderId": "папка", "orderBy": order, "pageSize": 1});
            // The length of every token is checked there.
            assert_eq!(all(&caller, Method::DesktopList, query).await.len(), 4);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Delete,
    RenameToFirst,
    RenameToLast,
    RenameTwiceAndDelete,
}

#[tokio::test]
async fn a_last_item_that_goes_between_pages_skips_and_repeats_nothing_else() {
    use Change::*;
    let server = TestServer::start().await;
    let names = ["b", "c", "d", "e", "f"].map(str::to_owned);
    let caller = &server.callers()[0];
    let mut number = 0;
    for order in [
        "",
        "name",
        "name desc",
        "created_at",
        "createdAt desc",
        "status, name desc",
    ] {
        for size in 1..=4 {
            for change in [Delete, RenameToFirst, RenameToLast, RenameTwiceAndDelete] {
                let what = format!("{order:?} by {size}, {change:?}");
                number += 1;
                let folder = format!("folder{number}");
                copies(&server, &folder, &names).await;
                let query = json!({"folderId": folder, "orderBy": order, "pageSize": size});
                let before = all(caller, Method::DesktopList, query.clone()).await;
                let before = ids(&before);
                let page = caller
                    .call(Method::DesktopList, query.clone())
                    .await
                    .unwrap();
                let first = items(&page);
                let last = text(&first[size - 1], "id");
                change_image(&server, last, change).await;

                let mut query = query;
                query["pageToken"] = page["nextPageToken"].clone();
                let rest = all(caller, Method::DesktopList, query).await;
                let rest: Vec<&str> = ids(&rest).into_iter().filter(|id| *id != last).collect();
                let expected: Vec<&str> = before[size..].to_vec();
                assert_eq!(rest, expected, "{what}");
            }
        }
    }
}

async fn change_image(server: &TestServer, id: &str, change: Change) {
    let rename = |name: &str| {
        let request = json!({"imageId": id, "updateMask": "name", "name": name});
        server.ask(Method::DesktopUpdate, request)
    };
    match change {
        Change::Delete => {}
        Change::RenameToFirst => drop(rename("a").await),
        Change::RenameToLast => drop(rename("z").await),
        Change::RenameTwiceAndDelete => {
            rename("z").await;
            rename("a").await;
        }
    }
    if matches!(change, Change::Delete | Change::RenameTwiceAndDelete) {
        server
            .ask(Method::DesktopDelete, json!({"imageId": id}))
            .await;
    }
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_serve_either_transport() {
    let mut server = TestServer::start().await;
    let names = ["a", "b", "c"].map(str::to_owned);
    copies(&server, "f", &names).await;
    let query = json!({"folderId": "f", "orderBy": "name", "pageSize": 1});
    let page = server.ask(Method::DesktopList, query).await;
    let image = json!({"imageId": items(&page)[0]["id"]});
    server.ask(Method::DesktopDelete, image).await;
    server.restart().await;
    for caller in server.callers() {
        // The size of the pages may change under way.
        let query = json!({
            "folderId": "f", "orderBy": "name", "pageSize": 2, "pageToken": page["nextPageToken"],
        });
        let found = all(&caller, Method::DesktopList, query).await;
        let found: Vec<&str> = found.iter().map(|image| text(image, "name")).collect();
        assert_eq!(found, ["b", "c"]);
    }
}

#[tokio::test]
async fn only_the_token_of_this_query_is_taken() {
    let server = TestServer::start().await;
    let names = ["a", "b", "c"].map(str::to_owned);
    copies(&server, "f", &names).await;
    let query = json!({"folderId": "f", "orderBy": "name", "filter": "name != 'x'", "pageSize": 1});
    let page = server.ask(Method::DesktopList, query.clone()).await;
    let token = text(&page, "nextPageToken");
    let mut changed = token.to_owned();
    changed.replace_range(..1, if token.starts_with('A') { "B" } else { "A" });
    for caller in server.callers() {
        for (name, value) in [
            ("folderId", "g"),
            ("orderBy", ""),
            ("orderBy", "name desc"),
            ("filter", ""),
            ("filter", "name != 'y'"),
            ("filter", "name = 'x'"),
            ("pageToken", "x"),
            ("pageToken", "!!!!"),
            ("pageToken", &changed),
            ("pageToken", &token[1..]),
            ("pageToken", &token[..token.len() / 2]),
            ("pageToken", &format!("{token}!")),
            ("pageToken", "ключ"),
        ] {
            let mut request = query.clone();
            request["pageToken"] = json!(token);
            request[name] = json!(value);
            let refusal = caller
                .call(Method::DesktopList, request.clone())
                .await
                .unwrap_err();
            assert_eq!(refusal.code, Code::InvalidArgument, "{request}");
            assert_eq!(refusal.fields, ["page_token"], "{request}");
        }
        let mut request = query.clone();
        request["pageToken"] = json!(token);
        let refusal = caller.call(Method::ComputeList, request).await.unwrap_err();
        assert_eq!(refusal.fields, ["page_token"]);
    }
}

#[tokio::test]
async fn filters_are_understood() {
    let server = TestServer::start().await;
    let names = [
        "a",
        "b",
        "it's",
        "say \"x\"",
        "back\\slash",
        "Ж",
        "and",
        "tab\there",
    ];
    copies(&server, "f", &names.map(str::to_owned)).await;
    for caller in server.callers() {
        for (filter, expected) in [
            ("", &names[..]),
            (" ", &names),
            ("name = \"a\"", &["a"]),
            ("name='a'", &["a"]),
            ("name = 'A'", &[]),
            ("name != 'a'", &names[1..]),
            ("name IN ('a', \"b\", 'missing')", &["a", "b"]),
            ("name in('a')", &["a"]),
            ("name NOT IN ('a', 'b')", &names[2..]),
            ("name not  In ( 'a' , 'b' )", &names[2..]),
            ("name = 'a' AND name = 'b'", &[]),
            ("name IN ('a', 'b') and name != 'a'", &["b"]),
            (
                "name IN ('a', 'b', 'Ж') AND name != 'a' AND name NOT IN ('b')",
                &["Ж"],
            ),
            ("name = 'it\\'s'", &["it's"]),
            ("name = \"it's\"", &["it's"]),
            ("name = 'say \"x\"'", &["say \"x\""]),
            ("name = \"say \\\"x\\\"\"", &["say \"x\""]),
            ("name = 'back\\\\slash'", &["back\\slash"]),
            ("name = '\\u0416'", &["Ж"]),
            ("name = '\\xd0\\x96'", &["Ж"]),
            ("name = '\\141'", &["a"]),
            ("name = 'tab\\there'", &["tab\there"]),
            ("name = 'and' AND name = 'and'", &["and"]),
        ] {
            let query = json!({"folderId": "f", "filter": filter, "pageSize": 3});
            let found = all(&caller, Method::DesktopList, query).await;
            let mut found: Vec<&str> = found.iter().map(|image| text(image, "name")).collect();
            let mut expected = expected.to_vec();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{filter}");
        }
    }
}

#[tokio::test]
async fn filters_and_orders_that_mean_nothing_are_refused() {
    let server = TestServer::start().await;
    for caller in server.callers() {
        for method in [Method::DesktopList, Method::ComputeList] {
            for filter in [
                "name",
                "name =",
                "name = a",
                "= 'a'",
                "name == 'a'",
                "name > 'a'",
                "name = 'a",
                "name = 'a' OR name = 'b'",
                "name = 'a' AND",
                "AND name = 'a'",
                "id = 'a'",
                "status = 'ACTIVE'",
                "Name = 'a'",
                "name IN 'a'",
                "name IN ()",
                "name IN ('a'",
                "name IN ('a',)",
                "name NOT 'a'",
                "name NOT = 'a'",
                "name = '\\z'",
                "name = '\\xff'",
                "name = '\\ud800'",
                "name = 'a' name = 'b'",
                "(name = 'a')",
                "name = 'a';",
                "'; DROP TABLE desktop_images; --",
            ] {
                let refusal = caller
                    .call(method, json!({"folderId": "f", "filter": filter}))
                    .await;
                let refusal = refusal.expect_err(filter);
                assert_eq!(refusal.code, Code::InvalidArgument, "{filter}");
                assert_eq!(refusal.fields, ["filter"], "{filter}");
            }
            for order in [
                "size",
                "Name",
                "name up",
                "name asc desc",
                "name,",
                ",name",
                "name,,status",
                "name, name",
                "created_at, createdAt desc",
                "name; DROP TABLE x",
                "-name",
            ] {
                let refusal = caller
                    .call(method, json!({"folderId": "f", "orderBy": order}))
                    .await;
                let refusal = refusal.expect_err(order);
                assert_eq!(refusal.code, Code::InvalidArgument, "{order}");
                assert_eq!(refusal.fields, ["order_by"], "{order}");
            }
        }
    }
}

#[tokio::test]
async fn compute_images_are_filtered_by_name_too() {
    let server = TestServer::start().await;
    let source = server
        .compute_image("f", "a", &Disk::mbr(1, Fill::Sparse(1)))
        .await;
    let unnamed = server
        .ask(Method::Create, json!({"folderId": "f", "imageId": source}))
        .await;
    for caller in server.callers() {
        for (filter, id) in [
            ("name = 'a'", &source),
            ("name != ''", &source),
            ("name NOT IN ('a')", &image_id(&unnamed)),
            ("name = ''", &image_id(&unnamed)),
        ] {
            let query = json!({"folderId": "f", "filter": filter});
            let found = all(&caller, Method::ComputeList, query).await;
            assert_eq!(ids(&found), [id], "{filter}");
        }
    }
}
