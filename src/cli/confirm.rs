//! Asking before something is done that is not easily undone.

use std::io::{self, BufRead, IsTerminal, Write};

use super::Failed;

/// Says what will happen, and goes on only when that is what is wanted.
///
/// # Errors
/// [`Failed`] when it is not, or when there is nobody to ask.
pub(super) fn confirm(what: &str, is_sure: bool) -> Result<(), Failed> {
    if is_sure {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failed::wrong_use(format!("{what}\nthere is no terminal to ask on: say --yes to do it")));
    }
    write!(io::stderr(), "{what}\nGo on? [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if is_yes(&answer) { Ok(()) } else { Err(Failed::refused("nothing was done")) }
}

fn is_yes(answer: &str) -> bool {
    ["y", "yes"].contains(&&*answer.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for answer in ["y\n", "Yes\n", " YES "] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "yep\n", "y y\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }
}
