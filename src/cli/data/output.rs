//! Where long output goes: standard output or a file, line by line as it comes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::Failed;

pub(super) struct Output<W: Write> {
    to: W,
    name: String,
    gone: bool,
}

impl Output<Box<dyn Write>> {
    /// A new file, or standard output for none and for `-`. A file that is there is left alone.
    pub(super) fn open(file: Option<&Path>) -> Result<Self, Failed> {
        let Some(path) = file.filter(|path| *path != Path::new("-")) else {
            return Ok(Output::to("standard output", Box::new(BufWriter::new(io::stdout()))));
        };
        let name = path.display().to_string();
        let file = File::create_new(path).map_err(|error| Failed::refused(format!("{name}: {error}")))?;
        Ok(Output::to(&name, Box::new(BufWriter::new(file))))
    }
}

impl<W: Write> Output<W> {
    pub(super) fn to(name: &str, to: W) -> Output<W> {
        Output { to, name: name.to_owned(), gone: false }
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), Failed> {
        let written = self.to.write_all(text.as_bytes()).and_then(|()| self.to.write_all(b"\n"));
        self.judge(written)
    }

    pub(super) fn flush(&mut self) -> Result<(), Failed> {
        let flushed = self.to.flush();
        self.judge(flushed)
    }

    /// Whether the reader has gone away and wants no more, which is no error.
    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    fn judge(&mut self, written: io::Result<()>) -> Result<(), Failed> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.gone = true,
            Err(error) => return Err(Failed::refused(format!("{}: {error}", self.name))),
            Ok(()) => {}
        }
        Ok(())
    }
}
