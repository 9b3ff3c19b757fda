//! `/v1/garden`: what strangers may reach.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json,
    extract::{
        Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::StatusCode,
};

use super::{ApiError, Control};
use crate::{
    clock,
    control::api::{AddRequest, GardenList, RemoveRequest, Removed, RuleView},
    garden::{
        learned::LearnedSink,
        table::{Garden, GardenError, PrefixSink},
        view,
    },
};

/// The walled garden, as the control API asks for it and changes it.
pub trait GardenControl: Send + Sync {
    /// Its rules, and what they have opened.
    fn list(&self) -> GardenList;
    /// Adds a rule until it is removed or the daemon ends.
    fn add(&self, request: AddRequest) -> Result<RuleView, GardenError>;
    /// Removes a rule that was added so.
    fn remove(&self, request: &RemoveRequest) -> Result<Removed, GardenError>;
}

impl<S: PrefixSink + LearnedSink + Send> GardenControl for Mutex<Garden<S>> {
    fn list(&self) -> GardenList {
        view::list(&self.lock().unwrap_or_else(PoisonError::into_inner), clock::now_ns())
    }

    fn add(&self, request: AddRequest) -> Result<RuleView, GardenError> {
        view::add(&mut self.lock().unwrap_or_else(PoisonError::into_inner), request, clock::now_ns())
    }

    fn remove(&self, request: &RemoveRequest) -> Result<Removed, GardenError> {
        view::remove(&mut self.lock().unwrap_or_else(PoisonError::into_inner), request)
    }
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Result<Json<GardenList>, ApiError> {
    Ok(Json(garden(&control)?.list()))
}

pub(super) async fn add(
    State(control): State<Arc<Control>>,
    request: Result<Json<AddRequest>, JsonRejection>,
) -> Result<Json<RuleView>, ApiError> {
    let Json(request) = request.map_err(|rejection| {
        let remedy = "send {\"to\": \"*.pay.example\"} or {\"to\": \"203.0.113.0/24\", \"ports\": [\"443/tcp\"]}, as application/json";
        ApiError::new(rejection.status(), "bad_request", rejection.body_text(), remedy)
    })?;
    let rule = garden(&control)?.add(request)?;
    tracing::info!(zone = rule.zone, to = rule.to, "added to the walled garden by the operator");
    Ok(Json(rule))
}

pub(super) async fn remove(
    State(control): State<Arc<Control>>,
    query: Result<Query<RemoveRequest>, QueryRejection>,
) -> Result<Json<Removed>, ApiError> {
    let Query(request) = query.map_err(|rejection| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "bad_request",
            rejection.body_text(),
            "use ?to=*.pay.example, and if you like &zone=NAME",
        )
    })?;
    let removed = garden(&control)?.remove(&request)?;
    tracing::info!(zone = removed.zone, to = removed.to, "removed from the walled garden by the operator");
    Ok(Json(removed))
}

fn garden(control: &Control) -> Result<&dyn GardenControl, ApiError> {
    control.garden.as_deref().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "no_garden",
            "this portald has no walled garden",
            "use a newer portald",
        )
    })
}

impl From<GardenError> for ApiError {
    fn from(error: GardenError) -> Self {
        let status = match &error {
            GardenError::UnknownZone(_) | GardenError::NoSuchZone(_) | GardenError::NotFound(_) => {
                StatusCode::NOT_FOUND
            }
            GardenError::WhichZone(_) | GardenError::Ports(_) => StatusCode::BAD_REQUEST,
            GardenError::Configured(_) => StatusCode::CONFLICT,
            GardenError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
            GardenError::Kernel(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let (code, remedy) = (error.code(), error.remedy());
        Self::new(status, code, error.to_string(), remedy)
    }
}
