//! The functions that a policy may have, and what each looks like.

use syn::spanned::Spanned;
use syn::{Error, FnArg, ImplItem, ImplItemFn, Result};

/// A function of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// The hook `exemption`.
    Exempt,
    /// The hook `sidecar`.
    Sidecar,
    /// The hook `naming`.
    Name,
    /// The hook `quota`.
    Quota,
    /// The check of the settings.
    Validate,
}

impl Hook {
    /// Reads one item of the block.
    pub(crate) fn of(item: &ImplItem) -> Result<(Self, &ImplItemFn)> {
        let ImplItem::Fn(function) = item else {
            return Err(Error::new(item.span(), format!("only hooks may stand here; {HELPERS}")));
        };
        let name = &function.sig.ident;
        let hook = match name.to_string().as_str() {
            "exempt" => Self::Exempt,
            "sidecar" => Self::Sidecar,
            "name" => Self::Name,
            "quota" => Self::Quota,
            "validate" => Self::Validate,
            other => {
                let message = format!(
                    "`{other}` is not a hook of a policy; the hooks are `exempt`, `sidecar`, `name` and `quota`, and `validate` \
                     checks the settings; {HELPERS}"
                );
                return Err(Error::new(name.span(), message));
            }
        };
        hook.check(function)?;
        Ok((hook, function))
    }

    fn signature(self) -> &'static str {
        match self {
            Self::Exempt => {
                "fn exempt(&self, pod: &Pod, namespace: &Namespace, volumes: &[Volume]) -> Result<Exemption, Problem>"
            }
            Self::Sidecar => {
                "fn sidecar(&self, pod: &Pod, namespace: &Namespace, volume: &Volume, current: &Sidecar) -> Result<Change, \
                 Problem>"
            }
            Self::Name => "fn name(&self, request: &NamingRequest) -> Result<Naming, Problem>",
            Self::Quota => "fn quota(&self, request: &QuotaRequest) -> Result<Quota, Problem>",
            Self::Validate => "fn validate(&self) -> Result<(), SettingsProblem>",
        }
    }

    fn arguments(self) -> usize {
        match self {
            Self::Exempt => 3,
            Self::Sidecar => 4,
            Self::Name | Self::Quota => 1,
            Self::Validate => 0,
        }
    }

    /// What a macro can see of a signature; the types of the arguments are left to the compiler.
    fn check(self, function: &ImplItemFn) -> Result<()> {
        let signature = &function.sig;
        let takes_self = matches!(
            signature.inputs.first(),
            Some(FnArg::Receiver(receiver)) if receiver.reference.is_some() && receiver.mutability.is_none()
        );
        let plain =
            signature.asyncness.is_none() && signature.unsafety.is_none() && signature.generics.params.is_empty();
        if takes_self && plain && signature.inputs.len() == 1 + self.arguments() {
            return Ok(());
        }
        Err(Error::new(signature.span(), format!("this hook must look like `{}`", self.signature())))
    }
}

const HELPERS: &str = "put helpers into another `impl` block";
