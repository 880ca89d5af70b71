//! Apps: the definition that is wanted now, and the older ones.
//!
//! It does not know what runs. Invariants: the current version is the newest of `versions`; at
//! most [`VERSIONS_MAX`] versions are kept; `service_ports` lists those of current definitions.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_wire::ids::AppId;
use gantry_wire::marathon::App;
use gantry_wire::time::Millis;
use imbl::{OrdMap, OrdSet};

/// Versions kept of each app (Marathon's `max_versions` default is 50; 25 keep 10,000 apps small).
pub const VERSIONS_MAX: usize = 25;
/// First service port that is assigned (Marathon's `local_port_min`).
pub const SERVICE_PORT_MIN: u16 = 10_000;
/// Last service port that is assigned (Marathon's `local_port_max`).
pub const SERVICE_PORT_MAX: u16 = 20_000;

/// An app.
#[derive(Debug, Clone, PartialEq)]
pub struct AppRecord {
    /// What is wanted.
    pub spec: Arc<App>,
    /// Version of `spec`.
    pub version: Millis,
    /// Last change of anything but `instances`: tasks of an older one are replaced.
    pub config_version: Millis,
    /// Last change of `instances`.
    pub last_scaling_at: Millis,
    /// Definitions by version, `spec` included.
    pub versions: OrdMap<Millis, Arc<App>>,
}

impl AppRecord {
    /// The definition at a version, while it is kept.
    #[must_use]
    pub fn at(&self, version: Millis) -> Option<&App> {
        self.versions.get(&version).map(AsRef::as_ref)
    }
}

/// All apps.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Apps {
    records: OrdMap<AppId, Arc<AppRecord>>,
    service_ports: OrdMap<u16, OrdSet<AppId>>,
}

impl Apps {
    /// One app.
    #[must_use]
    pub fn get(&self, id: &AppId) -> Option<&AppRecord> {
        self.records.get(id).map(AsRef::as_ref)
    }

    /// All apps by id.
    pub fn iter(&self) -> impl Iterator<Item = &AppRecord> {
        self.records.values().map(AsRef::as_ref)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn put(&mut self, mut record: AppRecord) {
        record
            .versions
            .insert(record.version, Arc::clone(&record.spec));
        while record.versions.len() > VERSIONS_MAX {
            let oldest = record.versions.get_min().map(|(v, _)| *v);
            oldest.and_then(|v| record.versions.remove(&v));
        }
        let id = record.spec.id.clone();
        self.remove(&id);
        for port in record.spec.service_ports().into_iter().filter(|p| *p != 0) {
            self.service_ports
                .entry(port)
                .or_default()
                .insert(id.clone());
        }
        self.records.insert(id, Arc::new(record));
    }

    pub(crate) fn remove(&mut self, id: &AppId) -> Option<Arc<AppRecord>> {
        let record = self.records.remove(id)?;
        for port in record.spec.service_ports() {
            let Some(apps) = self.service_ports.get_mut(&port) else {
                continue;
            };
            apps.remove(id);
            if apps.is_empty() {
                self.service_ports.remove(&port);
            }
        }
        Some(record)
    }

    /// The lowest service port that no app has and `taken` does not hold.
    pub(crate) fn free_service_port(&self, taken: &BTreeSet<u16>) -> Option<u16> {
        let mut candidate = SERVICE_PORT_MIN;
        let used = self
            .service_ports
            .range(SERVICE_PORT_MIN..=SERVICE_PORT_MAX)
            .map(|(p, _)| *p);
        let mut used = used.peekable();
        while candidate <= SERVICE_PORT_MAX {
            while used.next_if(|p| *p < candidate).is_some() {}
            if used.peek() != Some(&candidate) && !taken.contains(&candidate) {
                return Some(candidate);
            }
            candidate += 1;
        }
        None
    }
}
