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
