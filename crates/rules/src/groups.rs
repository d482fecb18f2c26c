//! Rules as groups, one record each. Source: NoPorts policy, npp_atserver data.

use postern_proto::AtSign;
use serde::{Deserialize, Serialize};

use crate::names::{self, BadRule};
use crate::question::{Answer, Question};

/// A group as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    /// A number as text; the record is called by it.
    pub id: Option<String>,
    /// For people.
    pub name: String,
    /// For people.
    pub description: String,
    /// Devices' atSigns.
    #[serde(rename = "daemonAtSigns")]
    pub daemon_at_signs: Vec<String>,
    /// What is open on devices of these names.
    pub devices: Vec<NamedPermits>,
    /// What is open on devices of these groups.
    pub device_groups: Vec<NamedPermits>,
    /// Clients.
    #[serde(rename = "userAtSigns")]
    pub user_at_signs: Vec<String>,
}

/// A device or a device group, and what is open there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedPermits {
    /// Which.
    pub name: String,
    /// Permit-open entries.
    pub permit_opens: Vec<String>,
}

/// All groups, found good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRules {
    groups: Vec<Group>,
}

impl Group {
    /// The group with every name and permit in its normal form.
    ///
    /// # Errors
    /// The first that cannot be.
    pub fn check(self) -> Result<Self, BadRule> {
        let label = self.name.clone();
        let place = |field: &'static str| {
            let label = label.clone();
            move || format!("group {label:?}, {field}")
        };
        let at_signs = |list: Vec<String>, field| {
            let place = place(field);
            list.iter()
                .map(|text| names::at_sign(text, &place).map(|name| name.to_string()))
                .collect::<Result<Vec<_>, BadRule>>()
        };
        let named = |list: Vec<NamedPermits>, field, device: bool| {
            let place = place(field);
            let check = if device { names::device } else { names::group };
            let one = |entry: NamedPermits| {
                Ok(NamedPermits {
                    name: check(&entry.name, &place)?,
                    permit_opens: names::permits(&entry.permit_opens, &place)?,
                })
            };
            list.into_iter().map(one).collect::<Result<Vec<_>, BadRule>>()
        };
        if let Some(id) = &self.id
            && (id.is_empty() || id.len() > 19 || !id.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(BadRule::new(place("id")(), format!("{id:?} is no number")));
        }
        Ok(Self {
            id: self.id,
            name: names::text(&self.name, &place("name"))?,
            description: names::text(&self.description, &place("description"))?,
            daemon_at_signs: at_signs(self.daemon_at_signs, "daemonAtSigns")?,
            devices: named(self.devices, "devices", true)?,
            device_groups: named(self.device_groups, "deviceGroups", false)?,
            user_at_signs: at_signs(self.user_at_signs, "userAtSigns")?,
        })
    }
}

impl GroupRules {
    /// Groups that [`Group::check`] has passed; others are left out, for they would not match anything.
    pub fn new(groups: impl IntoIterator<Item = Group>) -> Self {
        Self { groups: groups.into_iter().collect() }
    }

    /// Decides: everything that any group opens to the client on this device, by name or by group.
    pub fn answer(&self, question: &Question) -> Answer {
        let has = |list: &[String], name: &AtSign| list.iter().any(|entry| entry == name.as_str());
        let named = |group: &&Group| {
            has(&group.user_at_signs, &question.client) && has(&group.daemon_at_signs, &question.daemon)
        };
        let permits = self.groups.iter().filter(named).flat_map(|group| {
            let by_name = group.devices.iter().filter(|device| device.name == question.device);
            let by_group = group.device_groups.iter().filter(|device| device.name == question.group);
            by_name.chain(by_group).flat_map(|device| device.permit_opens.iter().cloned())
        });
        Answer::by_permits(question, permits)
    }

    /// Whether any group names this device's atSign.
    pub fn knows_daemon(&self, daemon: &AtSign) -> bool {
        self.groups.iter().any(|group| group.daemon_at_signs.iter().any(|name| name == daemon.as_str()))
    }

    /// The groups.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The number after the highest, as text.
    pub fn next_id(&self) -> String {
        let ids = self.groups.iter().filter_map(|group| group.id.as_deref()?.parse::<u64>().ok());
        (ids.max().unwrap_or(0).saturating_add(1)).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{"id":"7","name":"field","description":"","daemonAtSigns":["@D"],"devices":[{"name":"Pi","permitOpens":["localhost:22"]}],"deviceGroups":[{"name":"lab","permitOpens":["*:80"]}],"userAtSigns":["@c"]}"#;

    fn question(client: &str, device: &str, group: &str) -> Question {
        Question {
            daemon: AtSign::parse("@d").unwrap(),
            device: device.into(),
            group: group.into(),
            client: AtSign::parse(client).unwrap(),
        }
    }

    fn sample() -> GroupRules {
        GroupRules::new([serde_json::from_str::<Group>(SAMPLE).unwrap().check().unwrap()])
    }

    #[test]
    fn name_and_group_add_up() {
        let rules = sample();
        let permits = |client, device, group| rules.answer(&question(client, device, group)).permit_open.unwrap();
        assert_eq!(permits("@c", "pi", "lab"), ["localhost:22", "*:80"]);
        assert_eq!(permits("@c", "pi", "__none__"), ["localhost:22"]);
        assert_eq!(permits("@c", "attic", "lab"), ["*:80"]);
        assert!(permits("@x", "pi", "lab").is_empty());
        assert_eq!(
            rules.answer(&question("@x", "pi", "lab")).reason(),
            "No permissions for @x at @d for either the device pi or the deviceGroup lab"
        );
        assert_eq!(
            rules.answer(&question("@c", "pi", "lab")).reason(),
            "@c has permission for device pi and/or device group lab at daemon @d"
        );
    }

    #[test]
    fn the_stored_form_comes_through_and_numbers_rise() {
        let group: Group = serde_json::from_str(SAMPLE).unwrap();
        assert_eq!(serde_json::to_string(&group).unwrap(), SAMPLE);
        assert_eq!(sample().next_id(), "8");
        assert_eq!(GroupRules::default().next_id(), "1");
        // What other programs add does not matter.
        assert!(serde_json::from_str::<Group>(r#"{"id":"1","colour":"red"}"#).is_ok());
    }

    #[test]
    fn a_group_that_cannot_be_is_refused_with_its_name() {
        let mut group: Group = serde_json::from_str(SAMPLE).unwrap();
        group.devices[0].permit_opens.push("22".into());
        assert!(group.check().unwrap_err().to_string().starts_with("group \"field\", devices:"));
        let odd = Group { id: Some("../x".into()), ..Group::default() };
        assert!(odd.check().is_err());
    }
}
