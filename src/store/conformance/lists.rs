//! Lists: every order, page by page.

use super::*;

fn query(order: &[(Column, Direction)], page_size: usize, after: Option<Position>) -> ListQuery {
    ListQuery {
        folder_id: "f".to_owned(),
        conditions: Vec::new(),
        order: order.to_vec(),
        page_size,
        after,
    }
}

/// All pages of a list, in their order.
async fn pages(store: &Tested, order: &[(Column, Direction)], size: usize) -> Vec<DesktopImage> {
    let (mut images, mut after) = (Vec::new(), None);
    loop {
        let page = store.desktop_images(query(order, size, after)).await;
        let page = page.unwrap();
        images.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return images,
        }
    }
}

/// The image of folder `f` becomes many: those of the folder lie before and between those of others.
const MANY: &str = "
    INSERT INTO desktop_images
    SELECT key + number, id_rest, CASE WHEN number < 150 OR number % 3000 = 0 THEN folder_key
            ELSE (SELECT key FROM folders WHERE id = 'g' || number % 5) END,
        status, 'n' || number, description, labels, min_disk_size, blob_key, blob_rest
    FROM desktop_images CROSS JOIN generate_series(1, 30000) AS number WHERE name = 'of-f';
    ANALYZE desktop_images";

/// Reads of each index of a table, once all connections have told of theirs.
const READ: &str = "SELECT coalesce(sum(idx_tup_read) FILTER (WHERE indexrelname = $1), 0)::bigint
    FROM pg_stat_user_indexes WHERE schemaname = current_schema()";

#[tokio::test]
async fn a_page_of_a_small_folder_reads_no_images_of_large_ones() {
    if !postgres_server::is_installed("lists beside large folders") {
        return;
    }
    let fixture = Fixture::new(Backend::Postgres).await;
    let source = fixture.compute_image("f", "source").await;
    for folder_id in ["f", "g0", "g1", "g2", "g3", "g4"] {
        let image = copy(folder_id, &format!("of-{folder_id}"), &source);
        fixture.accept(image, Start::Now).await.unwrap();
    }
    postgres_server::run(&fixture.url, MANY).await;
    // A statement is planned for all parameters alike from its sixth time on, on each connection.
    for _ in 0..4 {
        let images = pages(&fixture.store, &[], 15).await;
        assert_eq!(images.len(), 160);
    }
    fixture.store.close().await;
    let client = postgres_server::connect(&fixture.url).await.unwrap();
    let read = async |index: &str| -> i64 {
        let row = client.query_one(READ, &[&index]).await;
        row.unwrap().get(0)
    };
    test_support::eventually("the connections have told of their reads", || async {
        (read("desktop_images_folder").await >= 4 * 160).then_some(())
    })
    .await;
    assert!(read("desktop_images_pkey").await < 100);
}

pub(super) async fn pages_of_every_order_show_each_image_once(backend: Backend) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    for n in 0..12_u64 {
        let name = format!("n{}", n * 7 % 12);
        let start = [Start::Now, Start::After(LEASE)][(n % 2) as usize];
        fixture
            .accept(copy("f", &name, &source), start)
            .await
            .unwrap();
        fixture.pass(Duration::from_millis(n % 3));
    }
    fixture
        .accept(copy("g", "other", &source), Start::Now)
        .await
        .unwrap();
    use Column as C;
    use Direction::{Ascending, Descending};
    for order in [
        &[][..],
        &[(C::Id, Descending)],
        &[(C::Name, Ascending)],
        &[(C::Name, Descending)],
        &[(C::CreatedAt, Descending)],
        &[(C::Status, Ascending), (C::Name, Descending)],
        &[(C::Status, Descending), (C::CreatedAt, Ascending)],
    ] {
        let whole = pages(&fixture.store, order, 100).await;
        assert_eq!(whole.len(), 12);
        let total = total_order(order);
        let key = |image: &DesktopImage| Id::parse(DESKTOP_IMAGE_PREFIX, &image.id).unwrap();
        let in_order = whole.windows(2).all(|pair| {
            let [a, b] = [&pair[0], &pair[1]].map(|image| SortKey {
                id: key(image),
                name: &image.name,
                status: image.status as u8,
            });
            a.compare(&b, &total).is_lt()
        });
        assert!(in_order, "{order:?}");
        for size in [1, 5, 12] {
            assert_eq!(pages(&fixture.store, order, size).await, whole, "{order:?}");
        }
    }
    let conditions = [(false, 1), (true, 11)].map(|(negated, count)| {
        let values = vec!["n3".to_owned(), "none".to_owned()];
        (Condition { negated, values }, count)
    });
    for (condition, count) in conditions {
        let query = ListQuery {
            conditions: vec![condition],
            ..query(&[], 100, None)
        };
        let page = fixture.store.desktop_images(query).await.unwrap();
        assert_eq!(page.items.len(), count);
    }
}

pub(super) async fn a_page_goes_on_where_the_last_ended_though_its_last_item_is_gone(
    backend: Backend,
) {
    let fixture = Fixture::new(backend).await;
    let source = fixture.compute_image("f", "source").await;
    for name in ["a", "b", "c", "d"] {
        fixture
            .accept(copy("f", name, &source), Start::Now)
            .await
            .unwrap();
    }
    let order = [(Column::Name, Direction::Ascending)];
    let page = fixture.store.desktop_images(query(&order, 2, None)).await;
    let page = page.unwrap();
    let (last, next) = (page.items[1].clone(), page.next);
    let delete = Change::DeleteDesktopImage { id: last.id };
    fixture.accept(delete, Start::Now).await.unwrap();
    let rest = fixture
        .store
        .desktop_images(query(&order, 2, next.clone()))
        .await;
    let names: Vec<_> = rest.unwrap().items.into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["c", "d"]);

    fixture.pass(Duration::from_secs(2));
    fixture
        .store
        .prune_former_names(Duration::from_secs(1))
        .await
        .unwrap();
    let expired = fixture.store.desktop_images(query(&order, 2, next)).await;
    assert!(matches!(expired, Err(Error::PageTokenExpired)));
}
