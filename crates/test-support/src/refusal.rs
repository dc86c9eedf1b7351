//! Errors of both transports, in one form.

use serde_json::Value;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// A request that was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
    /// The fields named by the BadRequest detail, in its order.
    pub fields: Vec<String>,
    /// Subject and description of each violation of the QuotaFailure detail.
    pub quotas: Vec<(String, String)>,
}

impl Refusal {
    pub fn from_status(status: &Status) -> Self {
        let details = status.get_details_bad_request();
        let fields = details.map(|bad| bad.field_violations).unwrap_or_default();
        let details = status.get_details_quota_failure();
        let quotas = details.map(|quota| quota.violations).unwrap_or_default();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            fields: fields
                .into_iter()
                .map(|violation| violation.field)
                .collect(),
            quotas: quotas
                .into_iter()
                .map(|violation| (violation.subject, violation.description))
                .collect(),
        }
    }

    /// From the body of a REST reply, which must be a whole `google.rpc.Status`.
    pub fn from_json(body: &Value) -> Self {
        let code = body["code"]
            .as_i64()
            .unwrap_or_else(|| panic!("no code: {body}"));
        let details = body["details"].as_array().expect("a list of details");
        let fields = details
            .iter()
            .filter(|detail| detail["@type"] == "type.googleapis.com/google.rpc.BadRequest")
            .flat_map(|bad| {
                bad["fieldViolations"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
            })
            .map(|violation| violation["field"].as_str().unwrap_or_default().to_owned());
        Self {
            code: (code as i32).into(),
            message: crate::text(body, "message").to_owned(),
            fields: fields.collect(),
            quotas: quota_violations(body),
        }
    }
}

/// Subject and description of each violation of the QuotaFailure details of a status in JSON.
pub fn quota_violations(status: &Value) -> Vec<(String, String)> {
    let details = status["details"].as_array().expect("a list of details");
    details
        .iter()
        .filter(|detail| detail["@type"] == "type.googleapis.com/google.rpc.QuotaFailure")
        .flat_map(|quota| quota["violations"].as_array().cloned().unwrap_or_default())
        .map(|violation| {
            let text = |name| crate::text(&violation, name).to_owned();
            (text("subject"), text("description"))
        })
        .collect()
}

/// The HTTP code of a gRPC code (contract: Errors).
pub(crate) fn http_code(code: Code) -> u16 {
    match code as i32 {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
