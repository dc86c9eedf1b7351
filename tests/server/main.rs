//! What users may rely on, asked of whole servers from outside: over gRPC, over REST, and in the
//! data folder afterwards.

mod support;

mod audit;
mod clients;
mod commands;
mod compressed;
mod compute_images;
mod crashes;
mod damage;
mod data_folder;
mod database;
mod desktop_images;
mod downloads;
mod durability;
mod early_answers;
mod edge;
mod fairness;
mod formats;
mod framing;
mod grpc;
mod hang_ups;
mod http_requests;
mod idempotency;
mod imports;
mod latency;
mod lists;
mod lost_data;
mod operations;
mod permissions;
mod proxy;
mod quotas;
mod removals;
mod rest_streams;
mod retention;
mod transfers;
mod upload_heads;
mod upload_retries;
mod uploads;
mod validation;
mod verification;
mod watch;
