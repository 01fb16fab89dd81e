//! Looks up one of each kind, and lists each, in the namespace that it is about, in one that its binding does not select, and in one
//! that there is not, and says how many it got. Is loaded only where `lookup` is granted for every kind.

use pith_guests::granted::pith::policy::{claims, namespaces, persistent_volumes, storage_classes};

pith_guests::guest!({
    let mut said = Vec::new();
    for (namespace, claim) in [("shop", "data"), ("bank", "ledger"), ("nowhere", "data")] {
        let one = namespaces::get(namespace).iter().chain(&claims::get(namespace, claim)).count();
        let volume = persistent_volumes::of_claim(namespace, claim).iter().count();
        let several = claims::list(namespace, &[]).len() + persistent_volumes::of_claims(namespace, &[]).len();
        said.push(format!("{namespace} {one} {volume} {several}"));
    }
    let labels = [("team".to_owned(), "shop".to_owned())];
    let lists = [namespaces::list(&[]), namespaces::list(&labels), storage_classes::list()].map(|list| list.len());
    let class = storage_classes::get("juicefs").is_some();
    pith_guests::says(format!("{}, lists {lists:?}, class {class}", said.join(", ")))
});
