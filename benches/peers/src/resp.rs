//! The Redis protocol, RESP2, as far as SET and GET need it. Replies come in the order of the requests.

use std::collections::VecDeque;

use sloop::lab::dialect::{Ask, Dialect, Heard, Opening, Outcome, Refusal, Said, Slot};
use sloop::lab::workload::KEY_BYTES;

/// One connection.
#[derive(Clone, Debug, Default)]
pub struct Resp {
    /// Requests that have no reply yet, the oldest first.
    asked: VecDeque<Slot>,
}

impl Dialect for Resp {
    fn open(&mut self, _out: &mut Vec<u8>) -> Opening {
        self.asked.clear();
        Opening::Ready
    }

    fn ask(&mut self, slot: Slot, ask: Ask<'_>, out: &mut Vec<u8>) {
        self.asked.push_back(slot);
        match ask {
            Ask::Get { key } => {
                out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n$16\r\n");
                out.extend_from_slice(key);
            }
            Ask::Put { key, value, .. } => {
                out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$16\r\n");
                out.extend_from_slice(key);
                out.extend_from_slice(b"\r\n$");
                put_number(out, value.len());
                out.extend_from_slice(b"\r\n");
                out.extend_from_slice(value);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    fn hear<'a>(&mut self, from: &'a [u8], _out: &mut Vec<u8>) -> Result<Option<Heard<'a>>, Refusal> {
        let Some((outcome, bytes)) = reply(from)? else {
            return Ok(None);
        };
        let slot = self.asked.pop_front().ok_or_else(|| malformed("a reply to no request", from))?;
        Ok(Some(Heard { bytes, said: Said::Answer { slot, outcome } }))
    }
}

const _: () = assert!(KEY_BYTES == 16, "the length stands in the requests");

/// Longest line of a reply; Redis keeps its errors far below.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// The reply at the front, and its bytes.
fn reply(from: &[u8]) -> Result<Option<(Outcome<'static>, usize)>, Refusal> {
    let Some(end) = from.iter().take(LINE_BYTES_MAX).position(|&byte| byte == b'\r') else {
        return if from.len() < LINE_BYTES_MAX { Ok(None) } else { Err(malformed("a line without an end", from)) };
    };
    if from.len() < end + 2 {
        return Ok(None);
    }
    let (line, behind) = (&from[..end], end + 2);
    let outcome = match line.split_first() {
        Some((b'+', _)) => Outcome::Written,
        Some((b'-', text)) => Outcome::Refused(refusal(text)),
        Some((b'$', b"-1")) => Outcome::Absent,
        Some((b'$', length)) => {
            let length = std::str::from_utf8(length).ok().and_then(|digits| digits.parse::<usize>().ok());
            let length = length.ok_or_else(|| malformed("a length that is no number", line))?;
            let bytes = behind + length + 2;
            return Ok((bytes <= from.len()).then_some((Outcome::Found { context: &[] }, bytes)));
        }
        _ => return Err(malformed("a reply of another kind", line)),
    };
    Ok(Some((outcome, behind)))
}

fn refusal(text: &[u8]) -> Refusal {
    let kind = if text.starts_with(b"OOM") { "out of memory" } else { "refused" };
    Refusal { kind, message: String::from_utf8_lossy(text).into_owned(), passes: text.starts_with(b"LOADING") }
}

fn malformed(what: &str, found: &[u8]) -> Refusal {
    let found = found[..found.len().min(64)].escape_ascii();
    Refusal { kind: "malformed answer", message: format!("{what}: \"{found}\""), passes: false }
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on ends")]
mod tests {
    use super::*;

    fn answer(slot: u16, outcome: Outcome<'_>, bytes: usize) -> Heard<'_> {
        Heard { bytes, said: Said::Answer { slot: Slot(slot), outcome } }
    }

    #[test]
    fn requests_are_spelled_as_the_protocol_says() {
        let (mut resp, mut out) = (Resp::default(), vec![]);
        let key = b"user000000000007";
        resp.ask(Slot(1), Ask::Get { key }, &mut out);
        resp.ask(Slot(0), Ask::Put { key, value: b"twelve bytes", context: None }, &mut out);
        let spelled = "*2\r\n$3\r\nGET\r\n$16\r\nuser000000000007\r\n\
                       *3\r\n$3\r\nSET\r\n$16\r\nuser000000000007\r\n$12\r\ntwelve bytes\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), spelled);
    }

    #[test]
    fn replies_belong_to_the_requests_in_their_order() {
        let mut resp = Resp::default();
        for slot in [3, 1, 2, 0] {
            resp.ask(Slot(slot), Ask::Get { key: &[b'k'; 16] }, &mut vec![]);
        }
        let replies = b"$3\r\na\r\n\r\n+OK\r\n$-1\r\n-OOM too much\r\n";
        assert_eq!(resp.hear(replies, &mut vec![]), Ok(Some(answer(3, Outcome::Found { context: &[] }, 9))));
        assert_eq!(resp.hear(&replies[9..], &mut vec![]), Ok(Some(answer(1, Outcome::Written, 5))));
        assert_eq!(resp.hear(&replies[14..], &mut vec![]), Ok(Some(answer(2, Outcome::Absent, 5))));
        let refusal = Refusal { kind: "out of memory", message: "OOM too much".to_owned(), passes: false };
        assert_eq!(resp.hear(&replies[19..], &mut vec![]), Ok(Some(answer(0, Outcome::Refused(refusal), 15))));
        assert!(resp.hear(b"+OK\r\n", &mut vec![]).is_err(), "nobody asked");
    }

    #[test]
    fn a_reply_that_is_cut_waits_for_the_rest() {
        let whole = b"$12\r\ntwelve bytes\r\n";
        for cut in 0..whole.len() {
            assert_eq!(reply(&whole[..cut]), Ok(None));
        }
        assert!(reply(b"$x\r\n").is_err());
        assert!(reply(b":1\r\n").is_err());
        assert_eq!(reply(&[b'+'; LINE_BYTES_MAX - 1]), Ok(None));
        assert!(reply(&[b'+'; LINE_BYTES_MAX]).is_err());
    }
}
