//! Rules in a file of user groups. Source: NoPorts policy, npp_file.

use std::collections::{BTreeMap, BTreeSet};

use postern_proto::AtSign;
use serde::Deserialize;

use crate::names::{self, BadRule, Place};
use crate::question::{Answer, Question};

/// The file as it is written; [`FileRules::check`] makes rules of it.
///
/// ```yaml
/// userGroups:
///   admins:
///     userAtSigns: ["@alice", "@bob"]
///     permissions:
///       daemonAtSigns: ["@gateways"]
///       deviceNames:
///         cellar: ["localhost:22", "localhost:8080"]
///       deviceGroupNames:
///         field: ["localhost:22"]
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleFile {
    #[serde(default)]
    user_groups: BTreeMap<String, UserGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UserGroup {
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    user_at_signs: Vec<String>,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Permissions {
    #[serde(default)]
    daemon_at_signs: Vec<String>,
    #[serde(default)]
    device_names: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    device_group_names: BTreeMap<String, Vec<String>>,
}

/// Rules read from a file and found good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRules {
    groups: Vec<CheckedGroup>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct CheckedGroup {
    users: BTreeSet<AtSign>,
    daemons: BTreeSet<AtSign>,
    devices: BTreeMap<String, Vec<String>>,
    device_groups: BTreeMap<String, Vec<String>>,
}

impl FileRules {
    /// Checks every name and permit.
    ///
    /// # Errors
    /// The first that cannot be, with its place in the file.
    pub fn check(file: &RuleFile) -> Result<Self, BadRule> {
        let groups = file.user_groups.iter().map(|(name, group)| CheckedGroup::check(name, group));
        Ok(Self { groups: groups.collect::<Result<_, _>>()? })
    }

    /// Decides. What is said of a device by name counts instead of what is said of its group.
    pub fn answer(&self, question: &Question) -> Answer {
        let groups = || {
            let names = |group: &&CheckedGroup| {
                group.users.contains(&question.client) && group.daemons.contains(&question.daemon)
            };
            self.groups.iter().filter(names)
        };
        let mut by_name = groups().filter_map(|group| group.devices.get(&question.device)).peekable();
        if by_name.peek().is_some() {
            return Answer::by_permits(question, by_name.flatten().cloned());
        }
        let by_group = groups().filter_map(|group| group.device_groups.get(&question.group));
        Answer::by_permits(question, by_group.flatten().cloned())
    }

    /// Whether any rule names this device's atSign.
    pub fn knows_daemon(&self, daemon: &AtSign) -> bool {
        self.groups.iter().any(|group| group.daemons.contains(daemon))
    }

    /// How many user groups there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// True when nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

impl CheckedGroup {
    fn check(name: &str, group: &UserGroup) -> Result<Self, BadRule> {
        let at_signs = |list: &[String], field: &str| {
            let place = || format!("userGroups.{name}.{field}");
            list.iter().map(|text| names::at_sign(text, &place)).collect::<Result<BTreeSet<_>, _>>()
        };
        names::text(group.description.as_deref().unwrap_or_default(), &|| format!("userGroups.{name}.description"))?;
        let Permissions { daemon_at_signs, device_names, device_group_names } = &group.permissions;
        Ok(Self {
            users: at_signs(&group.user_at_signs, "userAtSigns")?,
            daemons: at_signs(daemon_at_signs, "permissions.daemonAtSigns")?,
            devices: by_name(device_names, names::device, &|| format!("userGroups.{name}.permissions.deviceNames"))?,
            device_groups: by_name(device_group_names, names::group, &|| {
                format!("userGroups.{name}.permissions.deviceGroupNames")
            })?,
        })
    }
}

fn by_name(
    map: &BTreeMap<String, Vec<String>>,
    check: impl Fn(&str, Place<'_>) -> Result<String, BadRule>,
    place: Place<'_>,
) -> Result<BTreeMap<String, Vec<String>>, BadRule> {
    let mut checked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, permits) in map {
        let key = check(name, place)?;
        let permits = names::permits(permits, &|| format!("{}.{name}", place()))?;
        checked.entry(key).or_default().extend(permits);
    }
    Ok(checked)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(json: serde_json::Value) -> Result<FileRules, BadRule> {
        FileRules::check(&serde_json::from_value(json).unwrap())
    }

    fn sample() -> FileRules {
        rules(json!({"userGroups": {
            "admins": {"userAtSigns": ["@alice", "Bob"], "permissions": {
                "daemonAtSigns": ["@d"],
                "deviceNames": {"Cellar": ["localhost:22"], "shut": []},
                "deviceGroupNames": {"field": ["*:*"]}}},
            "web": {"userAtSigns": ["@alice"], "permissions": {
                "daemonAtSigns": ["@d", "@e"],
                "deviceNames": {"cellar": ["localhost:80", "localhost:22"]}}},
        }}))
        .unwrap()
    }

    fn ask(client: &str, daemon: &str, device: &str, group: &str) -> Answer {
        let at_sign = |text| AtSign::parse(text).unwrap();
        let (daemon, client) = (at_sign(daemon), at_sign(client));
        sample().answer(&Question { daemon, device: device.into(), group: group.into(), client })
    }

    #[test]
    fn a_device_by_name_wins_over_its_group() {
        assert_eq!(ask("@bob", "@d", "cellar", "field").permit_open.unwrap(), ["localhost:22"]);
        assert_eq!(ask("@alice", "@d", "cellar", "field").permit_open.unwrap(), ["localhost:22", "localhost:80"]);
        assert_eq!(ask("@bob", "@d", "attic", "field").permit_open.unwrap(), ["*:*"]);
        // Named with nothing: the group does not open what the name shuts.
        assert!(!ask("@bob", "@d", "shut", "field").authorized);
    }

    #[test]
    fn who_or_what_no_rule_names_gets_nothing() {
        for (client, daemon, device, group) in [
            ("@carol", "@d", "cellar", "field"),
            ("@bob", "@e", "cellar", "field"),
            ("@bob", "@d", "attic", "__none__"),
            ("@d", "@d", "cellar", "field"),
        ] {
            let answer = ask(client, daemon, device, group);
            assert!(!answer.authorized && answer.permit_open == Some(Vec::new()), "{client} {daemon} {device}");
            assert!(answer.reason().starts_with("No permissions for"), "{}", answer.reason());
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let group = |users: &str, permit: &str| {
            json!({"userGroups": {"a": {"userAtSigns": [users],
                "permissions": {"daemonAtSigns": ["@d"], "deviceNames": {"pi": [permit]}}}}})
        };
        for (file, place) in [
            (group("@a b", "localhost:22"), "userGroups.a.userAtSigns"),
            (group("@a", "localhost"), "userGroups.a.permissions.deviceNames.pi"),
            (group("@a", "localhost:22,localhost:80"), "one host:port per entry"),
            (group("@a", "localhost:0"), "deviceNames.pi"),
        ] {
            let told = rules(file).unwrap_err().to_string();
            assert!(told.contains(place), "{told}");
        }
        assert!(serde_json::from_value::<RuleFile>(json!({"userGroups": {"a": {"users": []}}})).is_err());
        assert!(rules(json!({})).unwrap().is_empty());
    }
}
