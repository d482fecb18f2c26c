//! Words for a POSIX shell.

use std::process::Command;

/// A whole command as a line for a POSIX shell.
pub fn shell_line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote_for_shell(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// One word as a POSIX shell must be given it to see exactly that word.
pub fn quote_for_shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::COMMAND;
    use crate::run;

    #[test]
    fn a_shell_gives_quoted_words_back() -> anyhow::Result<()> {
        let words = ["plain", "", "two words", "it's", "$HOME `id` \"x\" \\ ;&|<>*?~#", "a\nb", "ü", "-n"];
        let line: Vec<String> = words.iter().map(|word| quote_for_shell(word)).collect();
        let script = format!("printf '%s\\0' {}", line.join(" "));
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let output = run(command, COMMAND)?.success()?;
        let heard = String::from_utf8(output.stdout)?;
        assert_eq!(heard.split('\0').take(words.len()).collect::<Vec<_>>(), words);
        Ok(())
    }
}
