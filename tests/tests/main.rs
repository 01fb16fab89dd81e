//! The end-to-end tests, in one binary.

mod access_modes;
mod adoption;
mod bindings;
mod certificates;
mod chart;
mod check;
mod cluster;
mod completion;
mod controller;
mod corpus;
mod csi_contract;
mod csi_sanity;
mod decisions;
mod driver;
mod engines;
mod enterprise;
mod ephemeral;
mod faults;
mod grants;
mod guests;
mod harness;
mod in_pods;
mod inject;
mod juicefs;
mod lists;
mod migration;
mod model;
mod modify;
mod naming;
mod policies;
mod quota;
mod registry;
mod reload;
mod repair;
mod replicas;
mod scenarios;
mod secret_finalizer;
mod secrets;
mod snapshots;
mod story;
mod trash;
mod unmount;
mod volumes;
mod watch;
mod webhook;

/// The objects of the tests' cluster.
const SHOP: &str = include_str!("../fixtures/objects/shop.yaml");
/// The review of a pod of 5 KB that mounts one claim of the shop.
const WEB: &str = include_str!("../fixtures/reviews/web.json");
