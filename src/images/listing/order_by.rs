//! `order_by`: columns, each with `asc` or `desc`, joined by commas.

use crate::model::{Column, Direction};

/// The order asked for; empty text asks for none. The error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<(Column, Direction)>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let mut order: Vec<(Column, Direction)> = Vec::new();
    for term in text.split(',') {
        let mut words = term.split_whitespace();
        let column = match words.next() {
            Some("id") => Column::Id,
            Some("name") => Column::Name,
            Some("created_at" | "createdAt") => Column::CreatedAt,
            Some("status") => Column::Status,
            Some(other) => {
                return Err(format!(
                    "unknown field {other:?}: expected name, created_at, status or id"
                ));
            }
            None => return Err("a field is missing beside a comma".to_owned()),
        };
        let direction = match words.next() {
            None => Direction::Ascending,
            Some(word) if word.eq_ignore_ascii_case("asc") => Direction::Ascending,
            Some(word) if word.eq_ignore_ascii_case("desc") => Direction::Descending,
            Some(other) => return Err(format!("{other:?}: expected asc or desc")),
        };
        if let Some(extra) = words.next() {
            return Err(format!("{extra:?}: expected a comma"));
        }
        if order.iter().any(|(other, _)| *other == column) {
            return Err(format!("{} is named twice", term.trim()));
        }
        order.push((column, direction));
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Column::{CreatedAt, Id, Name, Status};
    use Direction::{Ascending, Descending};

    #[test]
    fn orders() {
        for (text, expected) in [
            ("", vec![]),
            ("  ", vec![]),
            ("name", vec![(Name, Ascending)]),
            ("name DESC", vec![(Name, Descending)]),
            (
                "status desc,created_at asc , name",
                vec![
                    (Status, Descending),
                    (CreatedAt, Ascending),
                    (Name, Ascending),
                ],
            ),
            ("createdAt", vec![(CreatedAt, Ascending)]),
            ("id desc", vec![(Id, Descending)]),
        ] {
            assert_eq!(parse(text), Ok(expected), "{text:?}");
        }
        for (text, expected) in [
            ("size", "unknown field \"size\""),
            ("Name", "unknown field"),
            ("name up", "expected asc or desc"),
            ("name asc desc", "expected a comma"),
            ("name,", "missing"),
            (",", "missing"),
            ("name,name desc", "twice"),
        ] {
            let wrong = parse(text).expect_err(text);
            assert!(wrong.contains(expected), "{text:?}: {wrong}");
        }
    }
}
