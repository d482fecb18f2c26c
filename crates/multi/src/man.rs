//! `man [NAME] [--dir DIR]`: manual pages, made of the same definitions as `--help`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::applets::{Applet, LINKS, all, find, flags, whole};

/// Prints the manual page of a program (of postern itself without NAME), or writes all of them into a directory.
///
/// Look at one with: postern man npt | man -l -
///
/// Exit status: 0 done, 1 a page cannot be written, 2 no such program or wrong usage.
#[derive(Parser)]
#[command(name = "man", version, max_term_width = 100)]
struct Flags {
    /// A program: npt, pin, `pin list`.
    name: Vec<String>,
    /// Write all pages into this directory, sshnp.1, postern-pin.1 and so on; it is made if it is not there.
    #[arg(long, value_name = "DIR", conflicts_with = "name")]
    dir: Option<PathBuf>,
}

/// The command line, for completions.
pub(crate) fn command() -> clap::Command {
    <Flags as clap::CommandFactory>::command()
}

/// Runs `man` with its arguments, the program name first.
pub(crate) fn main(args: Vec<OsString>) -> ExitCode {
    let flags: Flags = match flags(args) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let outcome = match &flags.dir {
        Some(dir) => write_all(dir),
        None => match page(&flags.name) {
            Some(page) => {
                // A reader that went away counts as success.
                let _ = io::stdout().write_all(&page);
                return ExitCode::SUCCESS;
            }
            None => {
                let _ = writeln!(io::stderr(), "postern man: there is no program {:?}", flags.name.join(" "));
                return ExitCode::from(2);
            }
        },
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(io::stderr(), "postern man: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A page to be made.
struct Page {
    /// `postern-pin-list`
    title: String,
    /// What people type: `postern pin list`.
    typed: String,
    command: clap::Command,
}

impl Page {
    fn of(applet: &Applet) -> Self {
        let own = LINKS.contains(&applet.name);
        let (title, typed) = match applet.name {
            name if own => (name.to_owned(), name.to_owned()),
            name => (format!("postern-{name}"), format!("postern {name}")),
        };
        Self { title, typed, command: applet.command() }
    }

    fn whole() -> Self {
        Self { title: "postern".into(), typed: "postern".into(), command: whole() }
    }

    fn below(&self, command: &clap::Command) -> Self {
        let word = command.get_name();
        let (title, typed) = (format!("{}-{word}", self.title), format!("{} {word}", self.typed));
        Self { title, typed, command: command.clone() }
    }

    fn render(self) -> io::Result<Vec<u8>> {
        let Self { title, typed, command } = self;
        let command = command.display_name(title).bin_name(typed);
        let mut page = Vec::new();
        clap_mangen::Man::new(command).manual("Postern").render(&mut page)?;
        Ok(page)
    }
}

fn page(words: &[String]) -> Option<Vec<u8>> {
    let Some((first, rest)) = words.split_first() else { return Page::whole().render().ok() };
    let mut page = Page::of(find(first.as_ref())?);
    for word in rest {
        page = page.below(page.command.find_subcommand(word)?);
    }
    page.render().ok()
}

fn write_all(dir: &Path) -> Result<(), String> {
    let told = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    std::fs::create_dir_all(dir).map_err(|error| told(dir, error))?;
    let write = |title: &str, page: &[u8]| {
        let path = dir.join(format!("{title}.1"));
        std::fs::write(&path, page).map_err(|error| told(&path, error))
    };
    let mut pages = vec![Page::whole()];
    all().for_each(|applet| add(Page::of(applet), &mut pages));
    for page in pages {
        let title = page.title.clone();
        write(&title, &page.render().map_err(|error| told(dir, error))?)?;
        if LINKS.contains(&title.as_str()) {
            // Where the page of the whole looks for it.
            write(&format!("postern-{title}"), format!(".so man1/{title}.1\n").as_bytes())?;
        }
    }
    Ok(())
}

/// A page and those of its commands.
fn add(page: Page, pages: &mut Vec<Page>) {
    for below in page.command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        add(page.below(below), pages);
    }
    pages.push(page);
}
