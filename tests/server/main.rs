//! Promises to users, asked of whole servers from outside: over gRPC, over REST, and in the
//! data folder afterwards.

#![allow(
    unreachable_pub,
    reason = "nothing of a program is reachable from outside"
)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that fails may panic where it stands"
)]

mod audit;
mod authentication;
mod backup;
mod certificates;
mod clients;
mod codings;
mod command_connections;
mod command_words;
mod commands;
mod compressed;
mod compute_images;
mod connect;
mod connections;
mod crashes;
mod damage;
mod data_commands;
mod data_folder;
mod database;
mod desktop_images;
mod downloads;
mod dumps;
mod durability;
mod earlier_versions;
mod early_answers;
mod endpoints;
mod exposure;
mod fairness;
mod floods;
mod formats;
mod framing;
mod full_disk;
mod gateway;
mod grpc;
mod hang_ups;
mod health;
mod http_requests;
mod idempotency;
mod identity;
mod imports;
mod issuers;
mod latency;
mod listeners;
mod lists;
mod log;
mod log_limits;
mod lost_data;
mod migrate;
mod object_redirects;
mod object_starts;
mod object_storage;
mod object_verification;
mod operations;
mod permissions;
mod proxies;
mod proxy;
mod quotas;
mod removals;
mod replicas;
mod rest_streams;
mod retention;
mod roles;
mod secrets;
mod service_accounts;
mod signals;
mod store_starts;
mod subject_limits;
mod systemd;
mod tls;
mod transfers;
mod upgrades;
mod upload_heads;
mod upload_retries;
mod uploads;
mod validation;
mod verification;
mod watch;

/// A text in base64 without padding, as JWTs have it.
fn base64_url(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
}
