//! What stands on disk and comes from peers: sets, updates, remembered operations, layouts. Nothing panics, and what is
//! read is spelled again as something that reads the same; sets that were read join as sets do.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sloop::wire::Reader;
use sloop::wire::layout::{get_layout, put_layout};
use sloop::wire::sets::{decode_set, encode_set, get_remembered, get_set, get_update, put_remembered, put_update};

fuzz_target!(|bytes: &[u8]| {
    let Some((&way, bytes)) = bytes.split_first() else { return };
    let mut reader = Reader::new(bytes);
    match way % 4 {
        0 => {
            let Ok(set) = get_set(&mut reader) else { return };
            assert_eq!(decode_set(&encode_set(&set)).expect("we wrote it"), set);
            assert_eq!(set.join(&set), set);
            let Ok(other) = get_set(&mut reader) else { return };
            assert_eq!(set.join(&other), other.join(&set));
        }
        1 => {
            let Ok(update) = get_update(&mut reader) else { return };
            let mut again = BytesMut::new();
            put_update(&mut again, update.borrowed());
            assert_eq!(get_update(&mut Reader::new(&again)).expect("we wrote it"), update);
            let Ok(set) = get_set(&mut reader) else { return };
            if let Ok(applied) = set.apply(&update) {
                assert!(applied.vector().covers(update.version.dot));
            }
        }
        2 => {
            let Ok(remembered) = get_remembered(&mut reader) else { return };
            let mut again = BytesMut::new();
            put_remembered(&mut again, &remembered);
            assert_eq!(get_remembered(&mut Reader::new(&again)).expect("we wrote it"), remembered);
        }
        _ => {
            let Ok(layout) = get_layout(&mut reader) else { return };
            let _ = layout.check(None);
            let mut again = BytesMut::new();
            put_layout(&mut again, &layout);
            assert_eq!(get_layout(&mut Reader::new(&again)).expect("we wrote it"), layout);
        }
    }
});
