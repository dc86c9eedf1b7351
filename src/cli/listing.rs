//! The common parts of lists: their arguments, and the walk over their pages.

use super::errors::{Error, Result};

/// The largest page that the contract allows.
const LARGEST_PAGE: i64 = 1000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The folder whose items are listed
    #[arg(long, value_name = "ID")]
    pub folder_id: String,
    /// Only items that match, as: name = "windows" or name IN ("a", "b")
    #[arg(long, value_name = "EXPRESSION", default_value = "")]
    pub filter: String,
    /// Fields to sort by, as: created_at desc, name
    #[arg(long, value_name = "FIELDS", default_value = "")]
    pub order_by: String,
    #[command(flatten)]
    pub pages: Pages,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pages {
    /// How many items one request asks for
    #[arg(long, value_name = "COUNT", default_value_t = LARGEST_PAGE,
          value_parser = clap::value_parser!(i64).range(1..=LARGEST_PAGE))]
    pub page_size: i64,
    /// How many items to list at most; all when left out
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
}

/// The page that a request asks for: its `page_size` and `page_token`.
pub(crate) struct Page {
    pub size: i64,
    pub token: String,
}

impl Pages {
    /// Follows the pages to the end of the list, or to the limit. `fetch` returns the items of a
    /// page and the token of the next one, empty at the end.
    pub(crate) async fn all<T>(
        &self,
        mut fetch: impl AsyncFnMut(Page) -> Result<(Vec<T>, String)>,
    ) -> Result<Vec<T>> {
        let limit = self.limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        });
        let mut items = Vec::new();
        let mut token = String::new();
        loop {
            let wanted = i64::try_from(limit - items.len()).unwrap_or(i64::MAX);
            let page = Page {
                size: self.page_size.min(wanted),
                token: token.clone(),
            };
            let (more, next) = fetch(page).await?;
            items.extend(more);
            items.truncate(limit);
            if next.is_empty() || items.len() == limit {
                return Ok(items);
            }
            if next == token {
                let message = "the server gave the same page token twice".to_owned();
                return Err(Error::Failed(message));
            }
            token = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lists the numbers below `count`, on a server whose tokens are numbers.
    async fn list(pages: Pages, count: i64) -> (Vec<i64>, Vec<i64>) {
        let mut sizes = Vec::new();
        let items = pages
            .all(async |page| {
                sizes.push(page.size);
                let from: i64 = page.token.parse().unwrap_or(0);
                let to = (from + page.size).min(count);
                let next = match to < count {
                    true => to.to_string(),
                    false => String::new(),
                };
                Ok(((from..to).collect(), next))
            })
            .await
            .unwrap();
        (items, sizes)
    }

    fn pages(page_size: i64, limit: Option<u64>) -> Pages {
        Pages { page_size, limit }
    }

    #[tokio::test]
    async fn pages_are_followed_to_the_end_or_the_limit() {
        let all: Vec<i64> = (0..7).collect();
        assert_eq!(list(pages(3, None), 7).await, (all.clone(), vec![3, 3, 3]));
        assert_eq!(list(pages(10, None), 7).await, (all.clone(), vec![10]));
        assert_eq!(list(pages(3, Some(5)), 7).await.0, all[..5]);
        assert_eq!(list(pages(3, Some(5)), 7).await.1, [3, 2]);
        assert_eq!(list(pages(3, Some(3)), 7).await.1, [3]);
        assert_eq!(list(pages(3, Some(50)), 7).await.0, all);
        assert!(list(pages(3, None), 0).await.0.is_empty());
    }

    #[tokio::test]
    async fn a_token_that_repeats_ends_the_walk() {
        let listed = pages(3, None)
            .all(async |_| Ok((vec![1], "again".to_owned())))
            .await;
        assert!(listed.is_err());
    }
}
