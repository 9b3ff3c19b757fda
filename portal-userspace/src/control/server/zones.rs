//! `/v1/zones`: the guest networks.

use std::sync::Arc;

use axum::{Json, extract::State, http::StatusCode};
use portal_common::tables::Zone;

use super::{ApiError, Control};
use crate::control::api::{ZoneList, ZoneView};

/// The guest networks, as the control API asks for them.
pub trait Zones: Send + Sync {
    /// Those that are guarded, by number.
    fn list(&self) -> Vec<ZoneView>;
}

/// Why a zone could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ZoneChangeError {
    /// There is no such zone.
    #[error("there is no zone `{0}`")]
    NoSuch(String),
    /// It can't be.
    #[error("{0:#}")]
    Refused(anyhow::Error),
}

pub(super) async fn list(State(control): State<Arc<Control>>) -> Json<ZoneList> {
    Json(ZoneList { zones: control.zones.list() })
}

/// The zone of this name, or every zone.
pub(super) fn wanted(zones: &dyn Zones, name: Option<&str>) -> Result<Vec<ZoneView>, ApiError> {
    let mut all = zones.list();
    let Some(name) = name else { return Ok(all) };
    all.retain(|zone| zone.name == name);
    if all.is_empty() {
        let known: Vec<String> = zones.list().into_iter().map(|zone| zone.name).collect();
        let message = format!("there is no zone `{name}`");
        let remedy = format!("name one of these: {}", known.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, "no_such_zone", message, remedy));
    }
    Ok(all)
}

/// The zone in the kernel's tables.
pub(super) fn zone(_view: &ZoneView) -> Zone {
    Zone::FIRST
}

/// The name of an interface with a zone.
pub(super) fn interface_name(zones: &dyn Zones, ifindex: u32) -> String {
    let zone = zones.list().into_iter().find(|zone| zone.interface_index == ifindex);
    zone.map_or_else(|| format!("interface {ifindex}"), |zone| zone.interface)
}
