use super::*;

fn machine() -> Machine {
    Machine { host: "alder".to_owned(), cores: 8, memory: 16 << 30 }
}

fn from_file(text: &str) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    layers.toml("s.toml".as_ref(), text)?;
    Config::resolve(&layers, &machine())
}

fn refusal(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

#[test]
fn without_a_word_a_node_runs_here_and_for_this_machine_only() {
    let config = Config::resolve(&Layers::default(), &machine()).unwrap();
    assert_eq!(config.name, "alder");
    assert_eq!(config.data_dir, PathBuf::from("./sloop-data"));
    assert_eq!(config.listen.to_string(), "127.0.0.1:7600");
    assert_eq!(config.http.to_string(), "127.0.0.1:7601");
    assert_eq!((config.cores, config.pin), (8, true));
    assert_eq!(config.memory, 2 << 30);
    assert_eq!(config.token, None);
}

#[test]
fn half_of_a_small_machine_is_the_most_that_is_taken_unasked() {
    let small = Machine { memory: 1 << 30, ..machine() };
    assert_eq!(Config::resolve(&Layers::default(), &small).unwrap().memory, 512 << 20);
}

#[test]
fn cores_and_memory_follow_from_each_other_where_one_is_given() {
    let on = |machine: &Machine, text: &str| {
        let mut layers = Layers::default();
        layers.toml("s.toml".as_ref(), text).unwrap();
        let config = Config::resolve(&layers, machine).unwrap();
        (config.cores, config.memory)
    };
    assert_eq!(on(&machine(), "memory = '200MiB'"), (2, 200 << 20), "as many cores as the memory feeds");
    assert_eq!(on(&Machine { cores: 32, memory: 256 << 30, ..machine() }, ""), (32, 6 << 30), "as much as they need");
    assert_eq!(on(&Machine { memory: 512 << 20, ..machine() }, ""), (2, 256 << 20));
    assert_eq!(on(&Machine { memory: 100 << 20, ..machine() }, ""), (1, 96 << 20));
}

#[test]
fn a_host_whose_name_is_no_name_runs_as_node() {
    let odd = Machine { host: "böse kiste".to_owned(), ..machine() };
    assert_eq!(Config::resolve(&Layers::default(), &odd).unwrap().name, "node");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let mut layers = Layers::default();
    layers.flag("cores", "1".to_owned());
    layers.environment([("SLOOP_CORES".to_owned(), "2".to_owned()), ("SLOOP_NAME".to_owned(), "env".to_owned())]);
    layers.toml("s.toml".as_ref(), "cores = 3\nname = 'file'\npin = false\n").unwrap();

    let config = Config::resolve(&layers, &machine()).unwrap();

    assert_eq!((config.cores, config.name.as_str(), config.pin), (1, "env", false));
    let origin = |name| config.origins[name].to_string();
    assert_eq!(origin("cores"), "flag --cores");
    assert_eq!(origin("name"), "environment SLOOP_NAME");
    assert_eq!(origin("pin"), "s.toml line 3");
}

#[test]
fn units_are_read_and_shown() {
    let config = from_file("memory = '192MiB'\nidle_timeout = '1m 30s'\n").unwrap();
    assert_eq!(config.memory, 192 << 20);
    assert_eq!(config.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.spelt("memory").unwrap(), "\"192MiB\"");
    assert_eq!(config.spelt("idle_timeout").unwrap(), "\"1m 30s\"");
    assert_eq!(from_file("memory = 268435456").unwrap().memory, 256 << 20);
}

#[test]
fn what_a_node_does_by_itself_has_its_pace() {
    let unsaid = from_file("").unwrap();
    assert_eq!((unsaid.auto_join, unsaid.transfer_rate), (false, 64 << 20));
    assert_eq!(unsaid.compare_period, Duration::from_secs(5));
    assert_eq!(unsaid.tombstone_age, Duration::from_secs(3_600));
    let told = "auto_join = true\ntransfer_rate = '1MiB'\ncompare_period = '200ms'\ntombstone_age = '2s'\n";
    let told = from_file(told).unwrap();
    assert_eq!((told.auto_join, told.transfer_rate), (true, 1 << 20));
    assert_eq!((told.compare_period, told.tombstone_age), (Duration::from_millis(200), Duration::from_secs(2)));
    assert_eq!(
        refusal("transfer_rate = '1KiB'"),
        "transfer_rate: 1KiB a second is too little: at least 64KiB (s.toml line 1)"
    );
}

#[test]
fn an_unknown_setting_names_file_line_and_the_nearest_known_one() {
    assert_eq!(
        refusal("name = 'a'\n\nmemroy = '1GiB'\n"),
        "s.toml line 3: unknown setting \"memroy\": did you mean \"memory\"?"
    );
}

#[test]
fn a_value_that_cannot_be_used_names_its_origin() {
    assert_eq!(refusal("\ncores = 0"), "cores: \"0\" is not a whole number from 1 to 1024 (s.toml line 2)");
    assert_eq!(
        refusal("memory = '1MiB'"),
        "memory: 1MiB is too little for cores = 1: at least 96MiB, or fewer cores (s.toml line 1)"
    );
    assert_eq!(
        refusal("memory = 'lots'"),
        "memory: \"lots\" is not a size such as \"64MiB\" or \"2GiB\" (s.toml line 1)"
    );
    assert_eq!(refusal("pin = 'yes'"), "pin: \"yes\" is neither true nor false (s.toml line 1)");
    assert_eq!(refusal("listen = [1]"), "listen: a value cannot be a array (s.toml line 1)");
    assert!(refusal("listen = 'here'").starts_with("listen: \"here\" is not an address such as"));
    assert!(refusal("idle_timeout = '0s'").contains("a time of nothing"));
    assert!(refusal("log_level = 'infoo'").contains("is not one of error, warn"));
    assert!(refusal("name = 'a b'").contains("is not a name"));
}

#[test]
fn both_listeners_cannot_have_one_address() {
    assert_eq!(
        refusal("listen = '127.0.0.1:7601'"),
        "http: 127.0.0.1:7601 is the address of the binary protocol too (default)"
    );
    assert!(from_file("listen = '127.0.0.1:0'\nhttp = '127.0.0.1:0'").is_ok());
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    assert!(refusal("name = 'a'\ncores = = 1\n").starts_with("s.toml line 2: "));
}

#[test]
fn beyond_this_machine_a_node_wants_a_token_or_insecure() {
    let refused = refusal("http = '0.0.0.0:7601'");
    assert!(refused.contains("--insecure") && refused.contains("token_file"), "{refused}");
    assert!(from_file("http = '0.0.0.0:7601'\ninsecure = true").is_ok());
    let reached = "listen = '[::]:7600'\nadvertise = '10.0.0.5:7600'";
    let refused = refusal(&format!("{reached}\ntoken = 'secret'"));
    assert!(refused.contains("--insecure") && refused.contains("cluster_secret_file"), "{refused}");
    assert!(from_file(&format!("{reached}\ntoken = 'secret'\ncluster_secret = 'x'")).is_ok());
}

#[test]
fn others_are_told_an_address_that_they_can_reach() {
    let refused = refusal("listen = '0.0.0.0:7600'\ninsecure = true");
    assert!(refused.contains("advertise"), "{refused}");
    assert!(refusal("advertise = '0.0.0.0:7600'").contains("no address that other nodes could reach"));
    assert!(from_file("listen = '0.0.0.0:7600'\nadvertise = '10.0.0.5:7600'\ninsecure = true").is_ok());
}

#[test]
fn members_to_join_are_addresses_with_commas_between_them() {
    let config = from_file("join = 'a:7600, 10.0.0.5:7600,'").unwrap();
    assert_eq!(config.join, ["a:7600", "10.0.0.5:7600"]);
    assert!(refusal("join = 'a'").contains("is not an address"));
    assert!(from_file("join = ''").unwrap().join.is_empty());
    for nobody in ["", ","] {
        let mut layers = Layers::default();
        layers.flag("join", nobody.to_owned());
        let refused = Config::resolve(&layers, &machine()).unwrap_err().to_string();
        assert_eq!(refused, "join: it names no address: leave it out to found a cluster (flag --join)");
    }
}

#[test]
fn quorums_are_a_majority_of_the_replicas_unless_they_are_given() {
    assert_eq!(from_file("").unwrap().wanted, Wanted { n: 3, r: 2, w: 2 });
    assert_eq!(from_file("replicas = 5\nread_quorum = 1").unwrap().wanted, Wanted { n: 5, r: 1, w: 3 });
    assert!(refusal("replicas = 2\nwrite_quorum = 3").contains("1 to 2"));
}

#[test]
fn a_token_is_read_from_its_file_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "sesame\n").unwrap();

    let config = from_file(&format!("token_file = '{}'", path.display())).unwrap();

    assert_eq!(config.token.as_ref().unwrap().reveal(), "sesame");
    assert!(!format!("{config:?}").contains("sesame"));
    assert!(!format!("{:?}", config.shown()).contains("sesame"));
    assert!(refusal("token = 'a'\ntoken_file = 'b'").contains("give one"));
    assert!(refusal("token_file = '/nowhere/token'").contains("/nowhere/token: No such file"));
    assert!(refusal("token = 'two words'").contains("visible ASCII"));
}

#[test]
fn a_variable_that_sets_nothing_is_worth_a_warning() {
    let mut layers = Layers::default();
    layers.environment([
        ("SLOOP_CORE".to_owned(), "2".to_owned()),
        ("SLOOP_ADDR".to_owned(), "127.0.0.1:1".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
    ]);
    assert_eq!(layers.warnings(), ["the variable SLOOP_CORE sets nothing: did you mean SLOOP_CORES?"]);
}

#[test]
fn what_is_shown_can_be_read_again() {
    let config = from_file("cores = 3\nmemory = '650MiB'\nlog_format = 'json'\nname = 'x'\n").unwrap();
    let shown: String =
        config.shown().into_iter().filter_map(|(name, value, _)| Some(format!("{name} = {}\n", value?))).collect();
    let again = from_file(&shown).unwrap();
    assert_eq!(Config { origins: config.origins.clone(), ..again }, config);
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let mut layers = Layers::default();
    layers.flag("memory", "17GiB".to_owned());
    let refused = Config::resolve(&layers, &machine()).unwrap_err();
    assert!(refused.to_string().contains("17GiB is more than the 16GiB that this process may use"), "{refused}");
}

#[test]
fn a_file_that_does_not_end_is_not_read_for_ever() {
    let mut layers = Layers::default();
    let endless = layers.file(Path::new("/dev/zero")).unwrap_err();
    assert!(endless.to_string().contains("more than 1048576 bytes"), "{endless}");

    layers.flag("token_file", "/dev/zero".to_owned());
    let endless = Config::resolve(&layers, &machine()).unwrap_err();
    assert!(endless.to_string().contains("more than 4096 bytes"), "{endless}");
}
