//! Sealed set-up: `connect`, which is ssh's ProxyCommand, from nothing and with what an agent keeps warm.

use std::fs;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

use crate::cpu::Accounts;
use crate::host::{Host, Site};
use crate::limits::{READY_DEADLINE, SETUP_DEADLINE};
use crate::peers::SshKit;
use crate::process::Spawn;
use crate::product::{CLIENT, DEVICE, DEVICE_NAME, DeviceSsh, House, NAME, RELAY};
use crate::setup::{self, Entrance, FirstByte, Step, Way, time_to_end, time_to_first_byte};
use crate::table::Check;

/// What is there before the user's command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warmth {
    /// The pins of an earlier session, and the addresses it found.
    Cold,
    /// An agent with a login, and no session.
    Login,
    /// An agent with a session to this device.
    Session,
}

/// The product as ssh's ProxyCommand.
pub(crate) struct ConnectWay {
    pub(crate) kit: Result<Rc<SshKit>, String>,
    pub(crate) warmth: Warmth,
}

struct ConnectEntrance {
    house: House,
    _ssh: DeviceSsh,
    kit: Rc<SshKit>,
    warmth: Warmth,
    /// What connect and ssh are told.
    config: PathBuf,
    ssh_config: PathBuf,
}

impl Way for ConnectWay {
    fn name(&self) -> String {
        let what = match self.warmth {
            Warmth::Cold => "connect",
            Warmth::Login => "connect, warm agent",
            Warmth::Session => "connect, second session",
        };
        format!("{NAME} {what}")
    }

    fn open(&self, accounts: &Accounts, site: &Site) -> anyhow::Result<Box<dyn Entrance>> {
        let kit = self.kit.as_ref().map_err(|why| anyhow!("{why}"))?;
        let ssh = DeviceSsh::start(kit, accounts, site)?;
        let house = House::stand(accounts, site, &[ssh.port])?;
        let config = house.home(CLIENT).join("config.yaml");
        fs::write(
            &config,
            format!(
                "from: \"{CLIENT}\"\nto: \"{DEVICE}\"\nrelay: \"{RELAY}\"\nroot: {}\nkey-file: {}\npatience: 30s\n",
                house.root(),
                house.keys(CLIENT).display()
            ),
        )?;
        let words = words(self.warmth).join(" ");
        let ssh_config = ssh.proxied(kit, &house, &format!("{words} {} {DEVICE_NAME} 22", config.display()))?;
        let entrance =
            ConnectEntrance { house, _ssh: ssh, kit: Rc::clone(kit), warmth: self.warmth, config, ssh_config };
        entrance.first_contact(site)?;
        Ok(Box::new(entrance))
    }

    fn delayed_checks(&self, row: &setup::Row) -> Vec<Check> {
        let most = match self.warmth {
            Warmth::Cold => 4.0,
            Warmth::Login => 1.5,
            Warmth::Session => 1.0,
        };
        // What a millisecond adds is read off three delays; a twentieth is what it scatters by.
        let figure = format!("{}: to ssh's first byte", self.name());
        vec![Check::at_most(figure, row.path_round_trips.unwrap_or(f64::NAN), most * 1.05, "path round trips")]
    }
}

/// Of the program, up to its configuration.
fn words(warmth: Warmth) -> [&'static str; 5] {
    let agent = if warmth == Warmth::Cold { "off" } else { "auto" };
    ["connect", "--stdio", "--agent", agent, "--config"]
}

impl ConnectEntrance {
    fn connect(&self, site: &Site) -> Spawn<'static> {
        self.house.client_program(&site.client, &words(self.warmth)).args([&self.config]).args([DEVICE_NAME, "22"])
    }

    fn agent(&self, site: &Site, word: &str) -> anyhow::Result<()> {
        time_to_end(self.house.client_program(&site.client, &["agent", word])).map(drop)
    }

    /// The device's keys are seen and remembered; the agent, if there is to be one, has its login.
    fn first_contact(&self, site: &Site) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        loop {
            match time_to_first_byte(self.connect(site).stdout()) {
                Ok(_) => break,
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => {}
            }
        }
        // By now the device is known: this one goes by the agent.
        time_to_first_byte(self.connect(site).stdout()).context("the second session").map(drop)
    }

    fn make_ready(&self, site: &Site) -> anyhow::Result<()> {
        match self.warmth {
            Warmth::Login => self.agent(site, "close"),
            Warmth::Cold | Warmth::Session => Ok(()),
        }
    }
}

impl Entrance for ConnectEntrance {
    fn remote_true(&self, site: &Site) -> anyhow::Result<Duration> {
        self.make_ready(site)?;
        time_to_end(self.kit.ssh(&site.client, &self.ssh_config).args([DEVICE_NAME, "true"]))
    }

    fn first_byte(&self, site: &Site) -> anyhow::Result<Option<FirstByte>> {
        self.make_ready(site)?;
        let start = Instant::now();
        let mut process = self.connect(site).args(["-v"]).stdout().stderr().start()?;
        let byte = process.first_byte()?;
        let took = start.elapsed();
        ensure!(byte == b'S', "not ssh's greeting");
        let mut steps = Vec::new();
        while let Some(line) = process.error_line()? {
            steps.extend(Step::parse(&line));
        }
        process.succeed(SETUP_DEADLINE)?;
        Ok(Some(FirstByte { took, steps }))
    }
}

impl Drop for ConnectEntrance {
    fn drop(&mut self) {
        // The agent would go on for ten minutes.
        if self.warmth != Warmth::Cold {
            let _ = time_to_end(self.house.client_program(&Host::loopback(), &["agent", "stop"]));
        }
    }
}
