//! What users may rely on, asked of whole servers from outside: over gRPC, over REST, and in the
//! data folder afterwards.

mod support;

mod clients;
mod compute_images;
mod crashes;
mod data_folder;
mod database;
mod desktop_images;
mod downloads;
mod durability;
mod hang_ups;
mod http_requests;
mod idempotency;
mod imports;
mod lists;
mod operations;
mod uploads;
mod validation;
