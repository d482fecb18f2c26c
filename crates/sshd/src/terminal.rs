//! Pseudo-terminals.

use std::io;
use std::os::fd::OwnedFd;

use russh::Pty;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{InputModes, OptionalActions, SpecialCodeIndex, Winsize, tcgetattr, tcsetattr, tcsetwinsize};
use tokio::io::unix::AsyncFd;

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// As in `TERM`.
    pub(crate) name: String,
    pub(crate) size: Winsize,
    pub(crate) modes: Vec<(Pty, u32)>,
}

/// Our end of a terminal.
pub(crate) struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// Our end, and that of the program.
    pub(crate) fn open(wanted: &Wanted) -> io::Result<(Self, OwnedFd)> {
        // Not inherited: whoever held our end could type for the user.
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&ours)?;
        unlockpt(&ours)?;
        let path = ptsname(&ours, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let theirs = rustix::fs::open(path.as_c_str(), flags, Mode::empty())?;
        tcsetwinsize(&theirs, wanted.size)?;
        set_modes(&theirs, &wanted.modes)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        #[expect(deprecated, reason = "its successor wants an unsafe promise that an OwnedFd keeps by itself")]
        let ours = AsyncFd::new(ours)?;
        Ok((Self(ours), theirs))
    }

    pub(crate) fn resize(&self, size: Winsize) {
        // A terminal whose program is gone has no size.
        let _ = tcsetwinsize(self.0.get_ref(), size);
    }

    /// What the program says; 0: nobody holds its end any more.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut *buffer)?)) {
                Ok(Err(error)) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => return Ok(0),
                Ok(outcome) => return outcome,
                Err(_not_yet) => {}
            }
        }
    }

    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = bytes.get(written?..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// The kernel's settings are those of a usual terminal; only what clients really differ in is taken over.
fn set_modes(terminal: &OwnedFd, modes: &[(Pty, u32)]) -> io::Result<()> {
    let mut settings = tcgetattr(terminal)?;
    for (mode, value) in modes {
        let code = match mode {
            Pty::VERASE => SpecialCodeIndex::VERASE,
            Pty::VINTR => SpecialCodeIndex::VINTR,
            Pty::VQUIT => SpecialCodeIndex::VQUIT,
            Pty::VEOF => SpecialCodeIndex::VEOF,
            Pty::VSUSP => SpecialCodeIndex::VSUSP,
            Pty::IUTF8 => {
                settings.input_modes.set(InputModes::IUTF8, *value != 0);
                continue;
            }
            _ => continue,
        };
        // 255 stands for "none". Source: RFC 4254, 8.
        settings.special_codes[code] = u8::try_from(*value).ok().filter(|code| *code != 255).unwrap_or(0);
    }
    Ok(tcsetattr(terminal, OptionalActions::Now, &settings)?)
}

/// Numbers of a client, which may be anything.
pub(crate) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Winsize {
    let fit = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_col: fit(columns), ws_row: fit(rows), ws_xpixel: fit(width), ws_ypixel: fit(height) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_one_end_says_the_other_reads_until_it_is_gone() {
        let modes = vec![(Pty::VERASE, 8), (Pty::IUTF8, 1), (Pty::VSUSP, 255)];
        let wanted = Wanted { name: "xterm".into(), size: size(132, 43, 0, u32::MAX), modes };
        let (ours, theirs) = Terminal::open(&wanted).unwrap();
        let seen = rustix::termios::tcgetwinsize(&theirs).unwrap();
        assert_eq!((seen.ws_col, seen.ws_row, seen.ws_ypixel), (132, 43, u16::MAX));
        assert_eq!(tcgetattr(&theirs).unwrap().special_codes[SpecialCodeIndex::VERASE], 8);
        rustix::io::write(&theirs, b"hello").unwrap();
        let mut buffer = [0; 16];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 5);
        ours.write_all(b"typed\n").await.unwrap();
        assert_eq!(rustix::io::read(&theirs, &mut buffer).unwrap(), 6);
        // The echo.
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 7);
        drop(theirs);
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 0);
    }
}
