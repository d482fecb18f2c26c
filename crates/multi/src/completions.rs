//! Completions for shells: the script that is installed once, and the answers that it asks us for, with the names of
//! devices and atSigns that are known here. Nobody else is asked for them.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;
use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Shells};

use crate::applets::{find, flags, whole};

/// Set by the script when it asks us.
const ASKED: &str = "POSTERN_COMPLETE";

/// Prints a script with completions for a shell: options, commands, and the names of devices and atSigns that are known here.
///
/// bash: put `source <(postern completions bash)` into ~/.bashrc. zsh: the same into ~/.zshrc, behind compinit. fish:
/// `postern completions fish > ~/.config/fish/completions/postern.fish`.
///
/// Exit status: 0 printed, 2 no such shell or program.
#[derive(Parser)]
#[command(name = "completions", version, max_term_width = 100)]
struct Flags {
    /// The shell.
    shell: Shell,
    /// For a link of this name: sshnp, npt and so on.
    #[arg(default_value = "postern")]
    program: String,
}

/// The command line.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `completions` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match flags(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let program = flags.program.as_str();
    if program != "postern" && find(OsStr::new(program)).is_none() {
        let _ = writeln!(std::io::stderr(), "postern completions: there is no program {program:?}");
        return ExitCode::from(2);
    }
    let mut out = Vec::new();
    if flags.shell == Shell::Bash {
        out.extend_from_slice(BASH.replace("PROGRAM", program).replace("FUNCTION", &function(program)).as_bytes());
    } else if let Some(completer) = Shells::builtins().completer(&flags.shell.to_string())
        && let Err(error) = completer.write_registration(ASKED, program, program, program, &mut out)
    {
        let _ = writeln!(std::io::stderr(), "postern completions: {error}");
        return ExitCode::from(2);
    }
    // A reader that went away counts as success.
    let _ = std::io::stdout().write_all(&out);
    ExitCode::SUCCESS
}

fn function(program: &str) -> String {
    format!("_{}", program.replace('-', "_"))
}

/// bash takes `@` for the end of a word, so that it would ask for what stands behind it: the words are read from the line, and
/// what bash has already is cut off the answers.
const BASH: &str = r#"FUNCTION() {
    local line=${COMP_LINE:0:COMP_POINT} words word cut
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] || -z $line ]] && words+=("")
    word=${words[${#words[@]}-1]}
    cut=${word%"$2"}
    # A flag and its value in one word: only the value is bash's.
    local IFS=$'\n'
    COMPREPLY=( $(POSTERN_COMPLETE=bash _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) \
        "PROGRAM" -- "${words[@]}" 2> /dev/null) )
    local i
    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$cut"}; done
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]]; then compopt -o nospace 2> /dev/null; fi
}
complete -o bashdefault -F FUNCTION PROGRAM
"#;

/// Answers a script that asks; `None`: nobody has asked.
pub(crate) fn answer(args: &[OsString]) -> Option<ExitCode> {
    std::env::var_os(ASKED).filter(|shell| !shell.is_empty())?;
    let program = args.first().and_then(|name| find(name));
    let factory = || match program {
        Some(applet) => with_names(applet.command()),
        None => with_names(whole()),
    };
    // Files are named from there.
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(factory).var(ASKED).try_complete(args.iter().cloned(), here.as_deref());
    Some(if asked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(feature = "clients")]
fn with_names(command: clap::Command) -> clap::Command {
    use std::collections::BTreeSet;

    use clap_complete::{ArgValueCandidates, CompletionCandidate};
    use postern_tunnel::KnownNames;

    fn named(set: fn(KnownNames) -> BTreeSet<String>) -> ArgValueCandidates {
        ArgValueCandidates::new(move || set(KnownNames::find()).into_iter().map(CompletionCandidate::new).collect())
    }
    let program = command.get_name().to_owned();
    let command = command.mut_args(|arg| {
        let candidates = match (program.as_str(), arg.get_id().as_str()) {
            ("sshnp" | "npt", "from") => named(|names| names.own),
            ("sshnp" | "npt", "to") => named(|names| names.device_at_signs),
            ("sshnp" | "npt", "device") => named(|names| names.devices),
            ("sshnp" | "npt", "srvd") => named(|names| names.relays),
            ("connect" | "hostkeys" | "known-hosts", "host" | "hosts") => named(|names| names.hosts),
            ("accept" | "remove" | "fingerprint", "name") => named(|names| names.pinned),
            ("sshnpd" | "at_activate", "at_sign") => named(|names| names.own),
            _ => return arg,
        };
        arg.add(candidates)
    });
    command.mut_subcommands(with_names)
}

#[cfg(not(feature = "clients"))]
fn with_names(command: clap::Command) -> clap::Command {
    command
}
