//! Landlock.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, make_bitflags, path_beneath_rules,
};

use crate::Wanted;

/// What is known of here; older kernels take on less of it.
const ABI_KNOWN: ABI = ABI::V5;

/// Whether files and whether ports are kept from us now.
pub(crate) fn restrict(wanted: &Wanted) -> Result<(bool, bool), RulesetError> {
    let read: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let run: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});
    // Files that are written whole: a draft, then a rename or a link. Nothing that is a device is made.
    let write: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | MakeDir | RemoveFile | RemoveDir | Refer});
    let mut handled = Ruleset::default().handle_access(AccessFs::from_all(ABI_KNOWN))?;
    if !wanted.listen {
        handled = handled.handle_access(AccessNet::BindTcp)?;
    }
    let status = handled
        .create()?
        .add_rules(path_beneath_rules(&wanted.read, read))?
        .add_rules(path_beneath_rules(&wanted.write, write))?
        .add_rules(path_beneath_rules(&wanted.run, run))?
        .restrict_self()?;
    let files = status.ruleset != RulesetStatus::NotEnforced;
    let ports = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => files && !wanted.listen && effective_abi >= ABI::V4,
        _ => false,
    };
    Ok((files, ports))
}
