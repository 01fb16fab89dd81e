//! Ids and sizes.

use proptest::prelude::*;

use super::*;

#[track_caller]
fn check_id(name: &str, expected: &str) {
    assert_eq!(id(name), expected, "{name:?}");
}

#[test]
fn a_name_that_is_a_safe_file_name_is_the_id() {
    for name in ["pvc-7f3c", "a", "0", "A.b_c-d", "a..b", "a.", "pith", "Pith-a", &"x".repeat(128)] {
        check_id(name, name);
    }
}

#[test]
fn any_other_name_becomes_a_digest() {
    check_id("", "pith-e3b0c44298fc1c149afbf4c8996fb92427ae41e4");
    check_id("../a", "pith-61b4c98bfb92bdc9391613020e5b8cbf68460066");
    for name in [".a", "-a", "_a", "a/b", "a b", "ä", "a\0", "..", &"x".repeat(129)] {
        assert!(id(name).starts_with("pith-") && id(name).len() == 45, "{name:?} is {}", id(name));
    }
}

#[test]
fn a_name_that_reads_like_the_digest_of_another_is_not_its_id() {
    let taken = id("../a");
    assert_ne!(id(&taken), taken);
}

#[track_caller]
fn check_capacity(required: Option<u64>, limit: Option<u64>, expected: Result<u64, &str>) {
    let size = capacity(required, limit).map_err(|problem| problem.to_string());
    assert_eq!(size, expected.map_err(String::from), "{required:?} to {limit:?}");
}

#[test]
fn a_size_is_whole_blocks_between_what_is_asked_and_the_limit() {
    const GIB: u64 = 1 << 30;
    const LARGEST: u64 = i64::MAX as u64 / BLOCK * BLOCK;
    check_capacity(None, None, Ok(0));
    check_capacity(Some(0), Some(0), Ok(0));
    check_capacity(Some(1), None, Ok(BLOCK));
    check_capacity(Some(GIB), Some(GIB), Ok(GIB));
    check_capacity(Some(GIB + GIB / 2), None, Ok(GIB + GIB / 2));
    check_capacity(Some(500_000_000), None, Ok(500_002_816));
    check_capacity(Some(GIB + 1), Some(2 * GIB), Ok(GIB + BLOCK));
    check_capacity(None, Some(3 * GIB - 1), Ok(3 * GIB - BLOCK));
    check_capacity(Some(LARGEST), None, Ok(LARGEST));
    let too_small = |size: u64, limit: u64| {
        format!(
            "the size of a volume is whole blocks of 4096 bytes, here at least {size} bytes, and the limit is {limit} bytes: \
             raise the limit, or ask for whole blocks"
        )
    };
    check_capacity(Some(GIB + 1), Some(GIB + 2), Err(&too_small(GIB + BLOCK, GIB + 2)));
    check_capacity(Some(2 * GIB), Some(GIB), Err(&too_small(2 * GIB, GIB)));
    check_capacity(None, Some(BLOCK - 1), Err(&too_small(BLOCK, BLOCK - 1)));
    check_capacity(Some(LARGEST + 1), None, Err("a volume of 9223372036854775808 bytes is too large"));
    check_capacity(Some(u64::MAX), None, Err("a volume of 18446744073709551615 bytes is too large"));
}

proptest! {
    #[test]
    fn every_id_is_a_directory_of_one_component_that_csi_takes(name in any::<String>()) {
        let id = id(&name);
        prop_assert!(id.len() <= 128);
        prop_assert!(is_id(&id));
        prop_assert!(Directory::new(vec![id]).is_ok());
    }

    #[test]
    fn what_can_be_an_id_leads_nowhere(text in any::<String>()) {
        let strange = [format!("../{text}"), format!(".{text}"), format!("{text}/"), format!("{text}\0")];
        prop_assert_eq!(strange.iter().find(|text| is_id(text)), None);
    }

    #[test]
    fn two_names_never_have_one_id(name in any::<String>(), other in any::<String>()) {
        for other in [&other, &id(&name), &id(&id(&name))] {
            prop_assert_eq!(id(&name) == id(other), name == *other);
        }
    }

    #[test]
    fn a_size_is_never_less_than_asked_nor_above_the_limit(required: Option<u64>, limit: Option<u64>) {
        if let Ok(size) = capacity(required, limit) {
            prop_assert_eq!(size % BLOCK, 0);
            prop_assert!(size >= required.unwrap_or(0));
            prop_assert!(limit.is_none_or(|limit| limit == 0 || size <= limit));
        }
    }
}
