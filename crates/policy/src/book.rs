//! The rules in force.

use postern_proto::AtSign;
use postern_rules::{Answer, FileRules, GroupRules, Question, Tables};

/// Rules of one of the three shapes.
#[derive(Clone, Debug)]
pub(crate) enum Book {
    /// `npp_file`
    File(FileRules),
    /// `npp_atserver`
    Groups(GroupRules),
    /// `npp`
    Tables(Tables),
}

impl Book {
    /// What to tell a device.
    pub(crate) fn answer(&self, question: &Question) -> Answer {
        match self {
            Self::File(rules) => rules.answer(question),
            Self::Groups(rules) => rules.answer(question),
            Self::Tables(rules) => rules.answer(question),
        }
    }

    /// Whether any rule names this device's atSign.
    pub(crate) fn knows_daemon(&self, daemon: &AtSign) -> bool {
        match self {
            Self::File(rules) => rules.knows_daemon(daemon),
            Self::Groups(rules) => rules.knows_daemon(daemon),
            Self::Tables(rules) => rules.knows_daemon(daemon),
        }
    }

    /// How much there is, for people.
    pub(crate) fn size(&self) -> String {
        let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        match self {
            Self::File(rules) => count(rules.len(), "user group"),
            Self::Groups(rules) => count(rules.groups().len(), "group"),
            Self::Tables(rules) => count(rules.rows(postern_rules::RowKind::ServiceAcl).len(), "service ACL"),
        }
    }
}
