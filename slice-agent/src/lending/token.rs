//! The secret that partners know. It is never printed.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use subtle::ConstantTimeEq as _;

const BYTES_MIN: usize = 16;
const BYTES_MAX: usize = 1024;
const SCHEME: &str = "Bearer ";

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(secret)")
    }
}

impl Token {
    /// # Errors
    /// Where there is none, or one that is too short, too long, or would not pass in a header.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let what = || format!("cannot open {}", path.display());
        // To open a pipe would wait for somebody who writes.
        let is_file = std::fs::metadata(path).with_context(what)?.is_file();
        ensure!(is_file, "{} is no file", path.display());
        let mut text = Vec::new();
        // What is longer is refused, and a device that never ends is not read to its end.
        let file = File::open(path).with_context(what)?;
        file.take(2 * BYTES_MAX as u64)
            .read_to_end(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let text = text.trim_ascii();
        ensure!(
            (BYTES_MIN..=BYTES_MAX).contains(&text.len()),
            "{} has a token of {} bytes; {BYTES_MIN} to {BYTES_MAX} are wanted, as from `openssl rand -hex 32`",
            path.display(),
            text.len()
        );
        ensure!(
            text.iter().all(u8::is_ascii_graphic),
            "{} has a token with characters that are not visible ASCII; write another one, as from \
             `openssl rand -hex 32`",
            path.display()
        );
        Ok(Self(String::from_utf8_lossy(text).into_owned()))
    }

    /// What a partner sends with a question.
    pub(super) fn header(&self) -> String {
        format!("{SCHEME}{}", self.0)
    }

    /// Whether a header is what a partner sends; takes as long whatever of it is wrong.
    pub(super) fn is_in(&self, header: &[u8]) -> bool {
        self.header().as_bytes().ct_eq(header).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Token, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, bytes).unwrap();
        let shown = path.display().to_string();
        Token::read(&path).map_err(|error| format!("{error:#}").replace(&shown, "FILE"))
    }

    #[test]
    fn a_token_is_compared_as_a_whole_and_never_shown() {
        let token = read(b"0123456789abcdef\n").unwrap();
        assert!(token.is_in(b"Bearer 0123456789abcdef"));
        for wrong in [
            "",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdeF",
            "0123456789abcdef",
        ] {
            assert!(!token.is_in(wrong.as_bytes()), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(secret)");
    }

    #[test]
    fn what_is_no_token_is_refused_with_the_reason() {
        let wanted = "16 to 1024 are wanted, as from `openssl rand -hex 32`";
        let of_bytes = |count| format!("FILE has a token of {count} bytes; {wanted}");
        assert_eq!(read(b" 0123456789abcde\n"), Err(of_bytes(15)));
        assert_eq!(read(&[b'x'; 1025]), Err(of_bytes(1025)));
        assert_eq!(
            read(&[b'x'; 10_000]),
            Err(of_bytes(2048)),
            "no more is read"
        );
        let error = read(b"0123456789 abcdef").unwrap_err();
        assert!(error.contains("not visible ASCII"), "{error}");
        let error = format!("{:#}", Token::read(Path::new("/dev/zero")).unwrap_err());
        assert_eq!(error, "/dev/zero is no file");
        let error = format!(
            "{:#}",
            Token::read(Path::new("/nowhere/token")).unwrap_err()
        );
        assert_eq!(
            error,
            "cannot open /nowhere/token: No such file or directory (os error 2)"
        );
    }
}
