//! seccomp: a list of what no program of ours ever does once it runs.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

/// Not named by libc for each musl. Source: the kernel's tables, x86_64 and the generic one.
const KEXEC_FILE_LOAD: i64 = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// Refused with EPERM. A list of what is allowed would break with each libc; these are what a thief would want.
const REFUSED: [i64; 47] = [
    // Never a listening socket.
    libc::SYS_listen,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_syslog,
    libc::SYS_reboot,
    libc::SYS_personality,
    // Its keys, clock and name.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

/// Families of sockets that no program of ours opens: packets off the wire, the kernel's ciphers, other machines of a host.
const FAMILIES: [i32; 4] = [libc::AF_PACKET, libc::AF_ALG, AF_VSOCK, AF_XDP];
/// Not named by libc for musl. Source: the kernel's include/linux/socket.h.
const AF_VSOCK: i32 = 40;
const AF_XDP: i32 = 44;
/// The kind of a socket without the flags that stand beside it.
const KIND: u64 = 0xf;

/// Whether the filter holds now.
pub(crate) fn refuse(listen: bool) -> Result<bool, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    if listen {
        rules.remove(&libc::SYS_listen);
    }
    rules.insert(libc::SYS_socket, sockets()?);
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?;
    let program: BpfProgram = filter.try_into()?;
    match apply_filter(&program) {
        Ok(()) => Ok(true),
        // A kernel without it.
        Err(seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn sockets() -> Result<Vec<SeccompRule>, seccompiler::Error> {
    let argument = |index, operator, value| SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value);
    let of_family = |family: &i32| {
        let family = argument(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))?;
        Ok(SeccompRule::new(vec![family])?)
    };
    let mut rules = FAMILIES.iter().map(of_family).collect::<Result<Vec<_>, seccompiler::Error>>()?;
    // Raw ones of IPv4 and IPv6; netlink's, by which libc asks for addresses, are raw too.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = argument(0, SeccompCmpOp::Eq, u64::from(family.unsigned_abs()))?;
        let raw = argument(1, SeccompCmpOp::MaskedEq(KIND), u64::from(libc::SOCK_RAW.unsigned_abs()))?;
        rules.push(SeccompRule::new(vec![family, raw])?);
    }
    Ok(rules)
}
