//! The progress of an operation, in words.

use crate::contract::texts;
use crate::model::{Operation, Progress, Transfer};

/// The step of an operation that brings bytes in, and their number; none where it brings
/// none in, or has ended.
pub(crate) fn words(operation: &Operation) -> Option<String> {
    if operation.is_done() {
        return None;
    }
    let mut words = match operation.transfer? {
        Transfer::Import => "Importing image".to_owned(),
        Transfer::Upload => "Uploading image".to_owned(),
    };
    if operation.attempt > 1 {
        words.push_str(&format!(" (attempt {})", operation.attempt));
    }
    if let Some(bytes) = bytes(operation.progress) {
        words.push_str(&format!(": {bytes}"));
    }
    Some(words)
}

/// Bytes done and in all; none before either is known.
fn bytes(Progress { done, total }: Progress) -> Option<String> {
    match total {
        None if done == 0 => None,
        None => Some(texts::bytes(done)),
        Some(total) => Some(texts::bytes_of(done, total)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Kind, Outcome, Timestamp};

    fn operation(
        transfer: Option<Transfer>,
        attempt: i64,
        done: u64,
        total: Option<u64>,
    ) -> Operation {
        Operation {
            id: "e3v1".to_owned(),
            kind: Kind::CreateComputeImage,
            folder_id: "f".to_owned(),
            image_id: "fd81".to_owned(),
            created_at: Timestamp(0),
            created_by: "anonymous".to_owned(),
            modified_at: Timestamp(0),
            attempt,
            progress: Progress { done, total },
            transfer,
            outcome: None,
        }
    }

    #[test]
    fn progress_is_told_in_the_unit_of_the_whole() {
        const TENTH: u64 = (1 << 30) / 10;
        let (import, upload) = (Some(Transfer::Import), Some(Transfer::Upload));
        for (transfer, attempt, done, total, expected) in [
            (import, 0, 0, None, "Importing image"),
            (
                import,
                1,
                12 * TENTH,
                Some(34 * TENTH),
                "Importing image: 1.2 of 3.4 GiB",
            ),
            (
                import,
                2,
                0,
                Some(34 * TENTH),
                "Importing image (attempt 2): 0 of 3.4 GiB",
            ),
            (import, 2, 0, None, "Importing image (attempt 2)"),
            (
                import,
                1,
                1 << 30,
                Some(1 << 40),
                "Importing image: 0 of 1 TiB",
            ),
            (import, 1, 0, Some(0), "Importing image: 0 of 0 B"),
            (upload, 1, 12 * TENTH, None, "Uploading image: 1.2 GiB"),
            (upload, 1, 1023, None, "Uploading image: 1023 B"),
            (
                upload,
                1,
                3 << 19,
                Some(2 << 20),
                "Uploading image: 1.5 of 2 MiB",
            ),
            (upload, 1, 1, Some(1 << 10), "Uploading image: 0 of 1 KiB"),
        ] {
            let operation = operation(transfer, attempt, done, total);
            assert_eq!(words(&operation).as_deref(), Some(expected));
        }
    }

    #[test]
    fn the_words_fit_whatever_the_numbers() {
        let longest = operation(Some(Transfer::Import), i64::MAX, u64::MAX, Some(u64::MAX));
        assert!(words(&longest).is_some_and(|words| words.chars().count() <= 256));
    }

    #[test]
    fn what_moves_no_bytes_or_has_ended_has_no_progress() {
        assert_eq!(words(&operation(None, 1, 0, None)), None);
        let mut ended = operation(Some(Transfer::Import), 1, 1, Some(1));
        ended.outcome = Some(Outcome::Succeeded(None));
        assert_eq!(words(&ended), None);
    }
}
