//! What argh does not do: `--version`, `--option=value`, exit code 2 for wrong use, and a word about arguments that are
//! not text.

use std::ffi::OsString;

use argh::FromArgs;

/// What a command line comes to.
#[derive(Debug)]
pub(super) enum Read<T> {
    /// Do this.
    Run(T),
    /// Say this and be done: help, or the version.
    Say(String),
    /// It cannot be meant like that.
    Wrong(String),
}

/// Reads a command line, the program's name first.
pub(super) fn read<T: FromArgs>(arguments: impl Iterator<Item = OsString>) -> Read<T> {
    let words = match arguments.skip(1).enumerate().map(text).collect::<Result<Vec<String>, String>>() {
        Ok(words) => split_values(words),
        Err(wrong) => return Read::Wrong(wrong),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["--version" | "-V"] = words[..] {
        return Read::Say(format!("sloop {}\n", env!("CARGO_PKG_VERSION")));
    }
    match T::from_args(&["sloop"], &words) {
        Ok(command) => Read::Run(command),
        Err(exit) if exit.status.is_ok() => Read::Say(exit.output),
        Err(exit) => Read::Wrong(exit.output),
    }
}

fn text((at, argument): (usize, OsString)) -> Result<String, String> {
    argument.into_string().map_err(|bytes| {
        format!(
            "argument {} is not UTF-8: \"{}\"; binary keys are given with --hex, values with --file",
            at + 1,
            bytes.as_encoded_bytes().escape_ascii()
        )
    })
}

/// Makes two words of each `--option=value`, up to a lone `--`.
fn split_values(words: Vec<String>) -> Vec<String> {
    let mut options = true;
    let split = |word: String| {
        options &= word != "--";
        match word.split_once('=') {
            Some((option, value)) if options && is_option(option) => vec![option.to_owned(), value.to_owned()],
            _ => vec![word],
        }
    };
    words.into_iter().flat_map(split).collect()
}

fn is_option(word: &str) -> bool {
    let name = word.strip_prefix("--").unwrap_or("");
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_lowercase() || c == '-')
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    /// A command for tests.
    #[derive(FromArgs, Debug)]
    struct Greet {
        /// how often
        #[argh(option)]
        times: Option<u8>,
        /// whom
        #[argh(positional)]
        whom: String,
    }

    fn greet(words: &[&str]) -> Read<Greet> {
        read(std::iter::once(&"sloop").chain(words).map(OsString::from))
    }

    #[test]
    fn an_option_may_stand_in_one_word_with_its_value() {
        let Read::Run(greet) = greet(&["--times=3", "you=me"]) else { panic!("not read") };
        assert_eq!((greet.times, greet.whom.as_str()), (Some(3), "you=me"));
    }

    #[test]
    fn behind_a_lone_double_dash_every_word_stands_for_itself() {
        let Read::Run(greet) = greet(&["--", "--times=3"]) else { panic!("not read") };
        assert_eq!((greet.times, greet.whom.as_str()), (None, "--times=3"));
    }

    #[test]
    fn help_and_version_are_no_errors_and_wrong_use_is_one() {
        assert!(matches!(greet(&["--version"]), Read::Say(text) if text.starts_with("sloop 0.")));
        assert!(matches!(greet(&["--help"]), Read::Say(text) if text.contains("--times")));
        assert!(matches!(greet(&["--nonsense"]), Read::Wrong(text) if text.contains("--nonsense")));
        assert!(matches!(greet(&[]), Read::Wrong(_)));
    }

    #[test]
    fn an_argument_that_is_not_text_is_named() {
        let words = [OsString::from("sloop"), OsString::from_vec(vec![b'a', 0xff])];
        let Read::<Greet>::Wrong(text) = read(words.into_iter()) else { panic!("taken") };
        assert_eq!(text, r#"argument 1 is not UTF-8: "a\xff"; binary keys are given with --hex, values with --file"#);
    }
}
