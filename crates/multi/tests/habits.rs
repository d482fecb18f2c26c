//! What people at a terminal expect: completions that know their devices, manual pages, configuration files that are
//! checked, and a word on what runs here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

const POSTERN: &str = env!("CARGO_BIN_EXE_postern");

/// Above what a shell needs to start and to ask us, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A home with a configuration, pins and keys.
fn home() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let finger = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU";
    write(
        ".config/postern/config.yaml",
        "from: '@alice'\nto: '@device'\nrelay: '@relay'\nhosts:\n  attic: {user: rak}\n",
    );
    let pins =
        format!("@device rsa2048 {finger} seen\ngw_17@device ed25519 {finger} seen\nshed@home ed25519 {finger} seen\n");
    write(".config/postern/known_atsigns", &pins);
    write(".atsign/keys/@alice_key.atKeys", "{}");
    home
}

fn postern(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(POSTERN);
    command.args(words).env_clear().env("HOME", home).env("PATH", std::env::var_os("PATH").unwrap());
    command
}

fn run(mut command: Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn there_is(program: &str) -> bool {
    let there = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|dir| dir.join(program).is_file());
    if !there {
        let _ = writeln!(std::io::stderr(), "skipped: there is no {program} here");
    }
    there
}

/// What bash offers for a line with the cursor at its end. `current`: the word as bash cuts it, at `@` too.
fn offered(home: &Path, line: &str, current: &str) -> Vec<String> {
    let script = r#"
        source <(postern completions bash)
        COMP_LINE=$1 COMP_POINT=${#1}
        _postern postern "$2" ""
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let bin = Path::new(POSTERN).parent().unwrap();
    let path = std::env::join_paths([bin, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", script, "bash", line, current]).env_clear().env("HOME", home).env("PATH", path);
    let (code, out, err) = run(bash);
    assert_eq!((code, err.as_str()), (0, ""), "{line}");
    out.lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_programs_flags_and_the_names_that_are_known_here() {
    let home = home();
    let offers = |line, current| offered(home.path(), line, current);
    assert_eq!(offers("postern conn", "conn"), ["connect"]);
    assert!(offers("postern npt --reve", "--reve").contains(&"--reverse".to_owned()));
    assert_eq!(offers("postern sshnp -d g", "g"), ["gw_17"]);
    // bash takes @ for the end of a word.
    assert_eq!(offers("postern npt -t @d", "d"), ["device"]);
    assert_eq!(offers("postern npt -t @d", "@d"), ["@device"]);
    let all = offers("postern npt -f @alice -t ", "");
    assert!(all.contains(&"@device".to_owned()) && all.contains(&"@home".to_owned()), "{all:?}");
    assert_eq!(offers("postern sshnp -f ", ""), ["@alice"]);
    let hosts = offers("postern connect --stdio ", "");
    for name in ["attic.np", "gw_17.np", "shed.home.np"] {
        assert!(hosts.contains(&name.to_owned()), "{hosts:?}");
    }
    assert!(offers("postern pin remove gw", "gw").contains(&"gw_17@device".to_owned()));
    // Names of a link of its own.
    let (code, script, _) = run(postern(home.path(), &["completions", "bash", "sshnp"]));
    assert!(code == 0 && script.contains("complete -o bashdefault -F _sshnp sshnp"), "{script}");
    assert_eq!(run(postern(home.path(), &["completions", "bash", "nothing"])).0, 2);
    assert_eq!(run(postern(home.path(), &["completions", "tcsh"])).0, 2);
}

#[test]
fn scripts_of_other_shells_are_good_ones() {
    let home = home();
    for shell in ["zsh", "fish"] {
        let (code, script, err) = run(postern(home.path(), &["completions", shell]));
        assert!(code == 0 && script.contains("POSTERN_COMPLETE"), "{shell}: {err}");
        if there_is(shell) {
            let file = home.path().join(shell);
            fs::write(&file, script).unwrap();
            let mut check = Command::new(shell);
            check.arg("-n").arg(&file);
            assert_eq!(run(check), (0, String::new(), String::new()), "{shell}");
        }
    }
}

#[test]
fn every_program_has_a_manual_page_that_man_can_read() {
    let home = home();
    let dir = home.path().join("man/man1");
    let (code, _, err) = run(postern(home.path(), &["man", "--dir", dir.to_str().unwrap()]));
    assert_eq!((code, err.as_str()), (0, ""));
    for page in ["postern", "sshnp", "npt", "sshnpd", "postern-connect", "postern-pin-list", "postern-config-check"] {
        let text = fs::read_to_string(dir.join(format!("{page}.1"))).unwrap();
        let says_status = text.contains("Exit status") || page == "postern-pin-list";
        assert!(text.contains(".SH SYNOPSIS") && says_status, "{page}: {text}");
    }
    let (code, text, _) = run(postern(home.path(), &["man", "pin", "list"]));
    assert!(code == 0 && text.contains("postern pin list"), "{text}");
    assert_eq!(run(postern(home.path(), &["man", "nothing"])).0, 2);
    if there_is("groff") {
        for page in fs::read_dir(&dir).unwrap().map(|page| page.unwrap().path()) {
            let mut groff = Command::new("groff");
            groff.args(["-Kutf8", "-man", "-Tutf8", "-ww", "-z"]).arg(&page).current_dir(dir.parent().unwrap());
            assert_eq!(run(groff), (0, String::new(), String::new()), "{}", page.display());
        }
    }
}

#[test]
fn configuration_is_checked_with_line_and_nearest_word() {
    let home = home();
    let dir = home.path();
    let (code, out, _) =
        run(postern(dir, &["config", "check", dir.join(".config/postern/config.yaml").to_str().unwrap()]));
    assert!(code == 0 && out.trim_end().ends_with(": right"), "{out}");
    let file = dir.join("sshnpd.yaml");
    let check = |text: &str| {
        fs::write(&file, text).unwrap();
        run(postern(dir, &["config", "check", file.to_str().unwrap()]))
    };
    assert_eq!(check("atsign: {atsign: '@d'}\naccess: {managers: ['@a']}\n").0, 0);
    let (code, _, err) = check("atsign: {atsign: '@d'}\naccess:\n  permit-open: []\n");
    assert!(code == 1 && err.contains("line 3") && err.contains("did you mean permitopen?"), "{err}");
    let (code, _, err) = check("access: {permitlisten: [\"*:80\"]}\n");
    assert!(code == 1 && err.contains("--permit-listen") && err.contains("*:80"), "{err}");
    for program in ["device", "client", "relay", "policy"] {
        let (code, text, _) = run(postern(dir, &["config", "default", program]));
        assert!(code == 0 && text.lines().all(|line| line.is_empty() || line.starts_with('#')), "{text}");
    }
    let (code, out, _) = run(postern(dir, &["config", "show", "client"]));
    assert!(code == 0 && out.contains("config.yaml") && out.contains("from: '@alice'"), "{out}");
    assert_eq!(run(postern(dir, &["config", "check", "whose"])).0, 2);
}

#[test]
fn status_says_what_runs_here() {
    let home = home();
    let (code, out, _) = run(postern(home.path(), &["status"]));
    // A service of the machine's own may run; of this home nothing does.
    assert!(code == 0 || out.starts_with("nothing of Postern runs here"), "{out}");
    assert!(out.contains("hosts   attic.np") && out.contains("gw_17@device"), "{out}");
    let (_, out, _) = run(postern(home.path(), &["status", "--json"]));
    assert!(out.starts_with(r#"{"v":1,"running":{"#), "{out}");
}

/// A person's shell at a terminal: what is typed there up to the tabulator, and what stands on the line then.
#[test]
fn shells_that_people_have_complete_at_a_terminal() {
    let home = home();
    let write = |path: &str, text: &str| {
        let path = home.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(".bashrc", "source <(postern completions bash)\nPS1='ready$ '\n");
    write(".zshrc", "autoload -Uz compinit && compinit -u -D\nsource <(postern completions zsh)\nPS1='ready$ '\n");
    write(".config/fish/config.fish", "postern completions fish | source\nfunction fish_prompt; echo 'ready$ '; end\n");
    let lines = [
        ("postern conn", "postern connect"),
        ("postern sshnp -d g", "postern sshnp -d gw_17"),
        ("postern npt --device=g", "postern npt --device=gw_17"),
        ("postern npt -f @alice -t @d", "postern npt -f @alice -t @device"),
        ("postern connect --stdio at", "postern connect --stdio attic.np"),
        ("postern pin remove gw", "postern pin remove gw_17@device"),
        ("postern config check .config/po", "postern config check .config/postern/"),
        ("postern config check .config/postern/con", "postern config check .config/postern/config.yaml"),
    ];
    for shell in ["bash", "zsh", "fish"] {
        if !there_is(shell) || !there_is("script") {
            continue;
        }
        let mut terminal = Terminal::open(home.path(), &format!("{shell} -i"));
        terminal.until("ready$ ");
        for (n, (typed, wanted)) in lines.into_iter().enumerate() {
            // Ctrl-A goes to the beginning of the line: it is shown and not run. The quotes tell what is typed from what
            // is said.
            terminal.keys(&format!("{typed}\t\u{1}echo s''aid-{n}: \n"));
            let said = terminal.until_line(&format!("said-{n}: "));
            assert_eq!(said, wanted, "{shell}: {typed}");
        }
        terminal.keys("exit\n");
    }
}

/// A program at a terminal of its own; ended with its handle.
struct Terminal {
    program: Child,
    shown: Receiver<Vec<u8>>,
    screen: String,
}

impl Terminal {
    fn open(home: &Path, program: &str) -> Self {
        let bin = Path::new(POSTERN).parent().unwrap();
        let path = std::env::join_paths([bin, Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let mut script = Command::new("script");
        script.args(["-qec", program, "/dev/null"]).env_clear().current_dir(home);
        script.env("HOME", home).env("PATH", path).env("TERM", "xterm").env("LANG", "C.UTF-8");
        let mut program = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = program.stdout.take().unwrap();
        let (tell, shown) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut bytes)
                && tell.send(bytes[..n].to_vec()).is_ok()
            {}
        });
        Self { program, shown, screen: String::new() }
    }

    fn keys(&mut self, keys: &str) {
        self.screen.clear();
        self.program.stdin.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn until(&mut self, wanted: &str) {
        while !self.screen.contains(wanted) {
            self.more(wanted);
        }
    }

    /// What follows these words in a line.
    fn until_line(&mut self, words: &str) -> String {
        self.until(words);
        let from = self.screen.find(words).unwrap() + words.len();
        while !self.screen[from..].contains('\r') {
            self.more("the end of a line");
        }
        self.screen[from..].split('\r').next().unwrap().trim_end().to_owned()
    }

    fn more(&mut self, wanted: &str) {
        let Ok(bytes) = self.shown.recv_timeout(PATIENCE) else {
            panic!("{wanted:?} was not shown: {:?}", self.screen)
        };
        self.screen.push_str(&String::from_utf8_lossy(&bytes));
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
