//! Which of the contract's functions a component has.

use pith_core::policy::Hook;
use wasmtime::component::{Component, ComponentExportIndex};

/// Where in a component its functions are. Looked up once, when it is loaded.
#[derive(Clone, Default)]
pub(super) struct Exports {
    exemption: Option<ComponentExportIndex>,
    sidecar: Option<ComponentExportIndex>,
    naming: Option<ComponentExportIndex>,
    quota: Option<ComponentExportIndex>,
    pub(super) settings: Option<ComponentExportIndex>,
}

impl Exports {
    /// Finds the functions in the interfaces of the host's version, or of one that fits it.
    pub(super) fn find(component: &Component) -> Exports {
        let find = |interface: &str, function: &str| {
            let instance = component.get_export_index(None, interface)?;
            component.get_export_index(Some(&instance), function)
        };
        Exports {
            exemption: find("pith:policy/exemption@0.1.0", "exempt"),
            sidecar: find("pith:policy/sidecar@0.1.0", "adjust"),
            naming: find("pith:policy/naming@0.1.0", "name"),
            quota: find("pith:policy/quota@0.1.0", "decide"),
            settings: find("pith:policy/settings@0.1.0", "validate"),
        }
    }

    pub(super) fn hook(&self, hook: Hook) -> Option<&ComponentExportIndex> {
        match hook {
            Hook::Exemption => self.exemption.as_ref(),
            Hook::Sidecar => self.sidecar.as_ref(),
            Hook::Naming => self.naming.as_ref(),
            Hook::Quota => self.quota.as_ref(),
        }
    }
}
