//! Values of keys on their way in and out: bytes, whatever they mean.

use std::ffi::OsStr;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::{CommandError, output};

/// The value that an argument, standard input (`-`) or a file gives.
pub(super) fn read(value: Option<&OsStr>, file: Option<&Path>) -> Result<Vec<u8>, CommandError> {
    match (value, file) {
        (_, Some(path)) => std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()).into()),
        (Some(value), None) if value == "-" => {
            let mut read = Vec::new();
            std::io::stdin()
                .read_to_end(&mut read)
                .map_err(|error| format!("standard input: {error}"))?;
            Ok(read)
        }
        (value, None) => Ok(value.unwrap_or_default().as_bytes().to_vec()),
    }
}

/// Prints a value: as it is, for a terminal so that nothing in it steers that, or as JSON.
pub(super) fn print(key: &[u8], value: &[u8], json: bool) -> Result<(), CommandError> {
    if json {
        let shown = serde_json::json!({
            "key": String::from_utf8_lossy(key),
            "base64": BASE64_STANDARD.encode(value),
            "text": std::str::from_utf8(value).ok(),
        });
        println!("{}", serde_json::to_string_pretty(&shown)?);
    } else if std::io::stdout().is_terminal() {
        println!("{}", shown(value));
    } else {
        output::out_bytes(value);
    }
    Ok(())
}

/// Text as it is, but for control characters other than tabs and ends of lines; and what is no text in
/// hexadecimal.
fn shown(value: &[u8]) -> String {
    let mut text = String::new();
    for chunk in value.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' | '\t' => text.push(character),
                other if other.is_control() => text.extend(other.escape_default()),
                other => text.push(other),
            }
        }
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_steers_no_terminal_and_hides_no_byte() {
        assert_eq!(shown("grün\n\tja".as_bytes()), "grün\n\tja");
        assert_eq!(shown(b"\x1b[2Ja\xff\xfe\r"), "\\u{1b}[2Ja\\xff\\xfe\\r");
    }

    #[test]
    fn a_value_comes_from_an_argument_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0, 255, 7]).unwrap();
        assert_eq!(read(None, Some(file.path())).unwrap(), [0, 255, 7]);
        assert_eq!(read(Some(OsStr::new("v")), None).unwrap(), b"v");
        let missing = read(None, Some(Path::new("no/such/file")))
            .unwrap_err()
            .to_string();
        assert!(missing.starts_with("no/such/file: "), "{missing}");
    }
}
