//! Lists as clients ask for them: conditions, order, and pages that go on where the last ended.

mod filter;
mod order_by;
mod page_token;

use page_token::Fingerprint;

use super::{Error, InvalidField, Result};
use crate::model::{ListQuery, Page};

const DEFAULT_PAGE_SIZE: usize = 100;

/// A request for a page of the images of a folder, as it was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListRequest {
    pub folder_id: String,
    /// Zero is the default of 100.
    pub page_size: i64,
    pub page_token: String,
    pub filter: String,
    pub order_by: String,
}

/// The query of a request to list `what`, and what makes the token of the next page.
pub(super) fn prepare(what: &str, request: ListRequest) -> Result<(ListQuery, ImageTokens)> {
    let mut invalid = Vec::new();
    let mut refuse = |field, description| invalid.push(InvalidField { field, description });
    let conditions = filter::parse(&request.filter).unwrap_or_else(|wrong| {
        refuse("filter", wrong);
        Vec::new()
    });
    let order = order_by::parse(&request.order_by).unwrap_or_else(|wrong| {
        refuse("order_by", wrong);
        Vec::new()
    });
    if !invalid.is_empty() {
        return Err(Error::Invalid(invalid));
    }
    // By what was understood, not by how it was written.
    let fingerprint = Fingerprint::of(&(what, &request.folder_id, &conditions, &order));
    let after = match request.page_token.as_str() {
        "" => None,
        token => Some(
            page_token::position(token, fingerprint)
                .map_err(|wrong| Error::invalid("page_token", wrong.to_string()))?,
        ),
    };
    let query = ListQuery {
        folder_id: request.folder_id,
        conditions,
        order,
        page_size: page_size(request.page_size),
        after,
    };
    Ok((query, ImageTokens(fingerprint)))
}

/// Makes the token of the next page of images.
pub(super) struct ImageTokens(Fingerprint);

impl ImageTokens {
    /// The items of a page and the token of the next one.
    pub(super) fn finish<T>(self, page: Page<T>) -> (Vec<T>, Option<String>) {
        let next = page
            .next
            .map(|position| page_token::from_position(&position, self.0));
        (page.items, next)
    }
}

/// The id of the last operation of the page before, and what makes the token of the next page.
pub(super) fn prepare_operations(
    image_id: &str,
    token: &str,
) -> Result<(Option<String>, OperationTokens)> {
    let fingerprint = Fingerprint::of(&("operations", image_id));
    let after = match token {
        "" => None,
        token => Some(
            page_token::id(token, fingerprint)
                .map_err(|wrong| Error::invalid("page_token", wrong.to_string()))?,
        ),
    };
    Ok((after, OperationTokens(fingerprint)))
}

/// Makes the token of the next page of operations.
pub(super) struct OperationTokens(Fingerprint);

impl OperationTokens {
    /// The token of the page after the operation with this id.
    pub(super) fn after(&self, id: &str) -> String {
        page_token::from_id(id, self.0)
    }
}

/// The page size asked for. The contract's rules have checked its range.
pub(super) fn page_size(requested: i64) -> usize {
    match usize::try_from(requested) {
        Ok(0) | Err(_) => DEFAULT_PAGE_SIZE,
        Ok(size) => size,
    }
}
