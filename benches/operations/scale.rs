//! Replicas on PostgreSQL: Copies beside the rows alone, inserted by pgbench on the same server; what more replicas
//! bring; Get and List beside a SELECT; and how long work waits whose replica is dead.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use desktop_images::contract::yandex::cloud::clouddesktop::v1::api::{
    GetDesktopImageRequest, ListDesktopImagesRequest,
};
use futures_util::future::try_join_all;
use serde_json::json;
use test_support::{Database, Disk, Fill, Method, eventually, text};
use tokio::process::Command;

use super::connection::Call;
use super::copies::{Copies, round};
use super::figures::{Figures, Goal, median, micros, millis, percentile};
use super::images::{self, Filled, GET, LIST, PAGE};
use super::load::{self, Shape};
use super::machine;
use super::server::{Place, Server};

const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(5);
/// Calls under way at a time, as many as pgbench has clients.
const CLIENTS: usize = 256;
const OF_ONE: Shape = Shape {
    connections: 16,
    streams: CLIENTS / 16,
};
const REPLICAS: usize = 4;
const OF_EACH: Shape = Shape {
    connections: OF_ONE.connections / REPLICAS,
    ..OF_ONE
};
/// Readers at a time: few enough that none waits for the others' turns on a small machine.
const READERS: usize = 2;
const READS: usize = 4_000;
const LEASE: Duration = Duration::from_secs(3);
/// The bytes of an image whose import takes seconds.
const SLOW_IMPORT: u64 = 3 << 30;
const DEATHS: usize = 3;

const OF_PGBENCH: Goal = Goal::AtLeast(2.0);
const OF_ONE_REPLICA: Goal = Goal::AtLeast(0.8);
const OVER_A_SELECT: Goal = Goal::AtMost(1.0);
const OVER_A_LEASE: Goal = Goal::AtMost(2.0);

/// The rows of a Copy.
const INSERTS: &str = "\\set folder random(1, 100)
BEGIN;
SELECT nextval('bench') AS key \\gset
INSERT INTO desktop_images (key, id_rest, folder_key, status, name, description, labels, min_disk_size,
    blob_key, blob_rest)
  SELECT :key, 1, :folder, 2, 'image-' || :key, '', '{}', min_disk_size, blob_key, blob_rest
  FROM desktop_images WHERE (key, id_rest) = (:image_key, :image_rest);
INSERT INTO operations SELECT :key, 1, kind, phase, cancel_requested, :folder, :key, 1, subject, request_id,
    idempotency_key, request_hash, upload, modified_at, attempt, claimable_at, lease_token, retry_until, task,
    progress_done, progress_total, response, error_reason, error_message, error_subject, error_quota
  FROM operations WHERE (key, id_rest) = (:operation_key, :operation_rest);
INSERT INTO audit_events (recorded_at, status, kind, subject, request_id, folder_key, operation_key,
    operation_rest, image_key, image_rest, message, changes, peer)
  VALUES (0, 4, 1, 'anonymous', '', :folder, :key, 1, :key, 1, NULL, NULL, '127.0.0.1');
COMMIT;
";

/// The rows that a Get and a List read.
const SELECT_ONE: &str = "SELECT image.*, blob.* FROM desktop_images AS image
    JOIN blobs AS blob ON (blob.key, blob.id_rest) = (blob_key, blob_rest)
    WHERE (image.key, image.id_rest) = (:image_key, :image_rest);
";
const SELECT_PAGE: &str = "SELECT image.*, blob.* FROM desktop_images AS image
    JOIN blobs AS blob ON (blob.key, blob.id_rest) = (blob_key, blob_rest)
    WHERE folder_key = (SELECT key FROM folders WHERE id = 'folder-1')
    ORDER BY image.key, image.id_rest LIMIT 101;
";

/// PostgreSQL, replicas on it, and what pgbench needs to know of a row.
struct Installation {
    database: Database,
    folder: PathBuf,
    replicas: Vec<Server>,
    copies: Vec<Copies>,
    image_id: String,
    variables: Vec<String>,
}

/// Measures all that concerns replicas.
pub async fn measure(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let Some(mut installation) = Installation::start(folder).await? else {
        return Err("PostgreSQL is not installed".into());
    };
    installation.copies(figures).await?;
    installation.reads(figures).await?;
    installation.claims(figures).await?;
    drop(installation);
    many_images(folder, figures).await
}

impl Installation {
    async fn start(folder: &Path) -> Result<Option<Self>, Box<dyn Error>> {
        let folder = folder.join("scale");
        std::fs::create_dir(&folder)?;
        let database = Database::start("replicas", &folder.join("database.log")).await;
        let Some(database) = database else {
            return Ok(None);
        };
        let mut installation = Self {
            database,
            folder,
            replicas: Vec::new(),
            copies: Vec::new(),
            image_id: String::new(),
            variables: Vec::new(),
        };
        for _ in 0..REPLICAS {
            installation.add_replica().await?;
        }
        let first = &installation.replicas[0];
        let request = json!({
            "folderId": "folder-1", "name": "first", "imageId": first.compute_image_id
        });
        let operation = first.ask(Method::Copy, request).await;
        installation.image_id = text(&operation["metadata"], "imageId").to_owned();
        let client = installation.database.client().await;
        client.batch_execute("CREATE SEQUENCE bench").await?;
        for (names, sql) in [
            (
                ["image_key", "image_rest"],
                "SELECT key, id_rest FROM desktop_images LIMIT 1",
            ),
            (
                ["operation_key", "operation_rest"],
                "SELECT key, id_rest FROM operations WHERE kind = 1 LIMIT 1",
            ),
        ] {
            let row = client.query_one(sql, &[]).await?;
            for (column, name) in names.into_iter().enumerate() {
                let value: i64 = row.get(column);
                installation.variables.push(format!("{name}={value}"));
            }
        }
        Ok(Some(installation))
    }

    async fn add_replica(&mut self) -> Result<(), Box<dyn Error>> {
        let place = Place {
            data: &self.folder.join("data"),
            store: Some(Database::url(self.database.address())),
            lease: Some(LEASE),
        };
        let server = match self.replicas.first() {
            None => Server::start_at(place).await?,
            Some(first) => Server::start_beside(first, place).await?,
        };
        self.copies.push(Copies::of(&server));
        let number = self.replicas.len();
        let names = self.copies.last_mut().ok_or("a replica")?;
        names.named(&format!("of-{number}-"));
        self.replicas.push(server);
        Ok(())
    }

    /// Copies a second through one replica, through all, and the same rows by pgbench, in rounds that alternate.
    async fn copies(&mut self, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let (mut one, mut all, mut inserts) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_server, mut of_database) = (Vec::new(), Vec::new());
        for number in 0..=ROUNDS {
            let before = self.database_time()?;
            let alone = round(&self.replicas[0], &mut self.copies[0], OF_ONE, ROUND).await?;
            let took = self.database_time()?.saturating_sub(before);
            let each = self.replicas.iter().zip(&mut self.copies);
            let each = each.map(|(server, copies)| round(server, copies, OF_EACH, ROUND));
            let each = try_join_all(each).await?;
            let rows = self.pgbench(INSERTS, CLIENTS, ROUND).await?;
            // The first round warms up.
            if number > 0 {
                one.push(alone.seen.per_second());
                all.push(each.iter().map(|round| round.seen.per_second()).sum());
                inserts.push(rows.per_second);
                of_server.push(alone.cpu_micros);
                of_database.push(micros(took) / alone.seen.latencies.len() as f64);
            }
        }
        figures.fact(
            &format!("Copies a second on PostgreSQL, one replica, {CLIENTS} at a time"),
            format!(
                "{:.0}, {:.0} µs of CPU each in the server and {:.0} µs in the database",
                median(&one),
                median(&of_server),
                median(&of_database)
            ),
        );
        let name = format!(
            "Copies a second / the same rows by pgbench, {CLIENTS} clients ({:.0})",
            median(&inserts)
        );
        figures.goal(&name, ratio(&one, &inserts), "", OF_PGBENCH);
        let name = format!(
            "Copies a second, {REPLICAS} replicas ({:.0}) / one",
            median(&all)
        );
        figures.goal(&name, ratio(&all, &one), "", OF_ONE_REPLICA);
        Ok(())
    }

    async fn reads(&mut self, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let get = Call::new(&GetDesktopImageRequest {
            image_id: self.image_id.clone(),
        });
        let list = Call::new(&ListDesktopImagesRequest {
            folder_id: "folder-1".to_owned(),
            page_size: PAGE,
            ..Default::default()
        });
        let shape = Shape {
            connections: READERS,
            streams: 1,
        };
        for (name, path, call, select) in [
            ("Get", GET, get, SELECT_ONE),
            ("List of 100", LIST, list, SELECT_PAGE),
        ] {
            let mut left = READS;
            let next = || {
                left = left.checked_sub(1)?;
                Some(Call {
                    message: call.message.clone(),
                    idempotency_key: None,
                })
            };
            let seen = load::run(self.replicas[0].address, path, shape, next, |_| {}).await?;
            let ours = percentile(&seen.latencies, 0.5);
            let select = self.pgbench(select, READERS, ROUND).await?.median;
            let name = format!(
                "{name}, p50 ({:.0} µs) over that of its SELECT by pgbench ({:.0} µs)",
                micros(ours),
                micros(select)
            );
            let over = millis(ours) - millis(select);
            figures.goal(&name, over, "ms", OVER_A_SELECT);
        }
        Ok(())
    }

    /// The time from the death of a replica to the claim of its work by another.
    async fn claims(&mut self, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
        let image = self.folder.join("imports/slow.img");
        write_zeros(&image)?;
        let client = self.database.client().await;
        let mut waits = Vec::new();
        // Of several replicas any one may run the import, so that there is one until it does.
        self.replicas.truncate(1);
        for _ in 0..DEATHS {
            let request = json!({"folderId": "slow", "uri": format!("file://{}", image.display())});
            let operation = self.replicas[0].ask(Method::Create, request).await;
            let held = eventually("the import runs", || lease(&client)).await;
            self.add_replica().await?;
            let dies = self.replicas.remove(0);
            self.copies.remove(0);
            dies.kill().await;
            let killed = Instant::now();
            eventually("another replica claims the import", || async {
                lease(&client).await.filter(|lease| *lease != held)
            })
            .await;
            waits.push(killed.elapsed().as_secs_f64() - LEASE.as_secs_f64());
            let request = json!({"operationId": operation["id"]});
            self.replicas[0].ask(Method::OperationCancel, request).await;
            self.replicas[0].wait(text(&operation, "id")).await;
        }
        let name = "from the death of a replica to the next claim, over the lease (3 s)";
        figures.goal(name, median(&waits), "s", OVER_A_LEASE);
        Ok(())
    }

    /// Processor time that the processes of the database have used so far.
    fn database_time(&self) -> Result<Duration, Box<dyn Error>> {
        machine::cpu_time_of_family(self.database.id().ok_or("the database is stopped")?)
    }

    async fn pgbench(
        &self,
        script: &str,
        clients: usize,
        time: Duration,
    ) -> Result<Transactions, Box<dyn Error>> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        let file = folder.path().join("script.sql");
        std::fs::write(&file, script.replace("\n    ", " ").replace("\n  ", " "))?;
        let address = self.database.address();
        let mut command = Command::new(self.database.programs().join("pgbench"));
        command
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args([
                "-U",
                Database::USER,
                "-n",
                "-M",
                "prepared",
                "-l",
                "-j",
                "2",
            ])
            .args(["-c", &clients.to_string()])
            .args(["-T", &time.as_secs().to_string()])
            .arg("-f")
            .arg(&file)
            .current_dir(folder.path());
        for variable in &self.variables {
            command.args(["-D", variable]);
        }
        let output = command.arg("postgres").output().await?;
        let told = String::from_utf8_lossy(&output.stdout);
        let per_second = told
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
        let per_second = per_second.ok_or_else(|| {
            let why = String::from_utf8_lossy(&output.stderr);
            format!("pgbench failed: {why}")
        })?;
        Ok(Transactions {
            per_second: per_second.parse()?,
            median: percentile(&latencies(folder.path())?, 0.5),
        })
    }
}

/// The figures of a run of pgbench.
struct Transactions {
    per_second: f64,
    median: Duration,
}

/// The times of transactions, which pgbench writes into a file for each of its threads: the third word of a line, in
/// microseconds (<https://www.postgresql.org/docs/15/pgbench.html>, "Per-Transaction Logging").
fn latencies(folder: &Path) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut latencies = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with("pgbench_log")
        {
            for line in std::fs::read_to_string(entry.path())?.lines() {
                let micros = line.split(' ').nth(2).ok_or("a line without a time")?;
                latencies.push(Duration::from_micros(micros.parse()?));
            }
        }
    }
    Ok(latencies)
}

/// The fencing token of the operation that runs.
async fn lease(client: &tokio_postgres::Client) -> Option<i64> {
    let sql = "SELECT lease_token FROM operations WHERE phase = 1 AND lease_token IS NOT NULL";
    client.query_opt(sql, &[]).await.ok()??.get(0)
}

/// A raw disk whose import takes a while: its zeros are stored, not left out.
fn write_zeros(path: &Path) -> Result<(), Box<dyn Error>> {
    let mut file = File::create(path)?;
    file.write_all(&Disk::mbr(1, Fill::Sparse(0)))?;
    let zeros = vec![0; 1 << 20];
    for _ in 0..SLOW_IMPORT >> 20 {
        file.write_all(&zeros)?;
    }
    Ok(())
}

/// List where there are few images, and where there are many.
async fn many_images(folder: &Path, figures: &mut Figures) -> Result<(), Box<dyn Error>> {
    let (mut databases, mut filled) = (Vec::new(), Vec::new());
    for (name, images) in [("few", images::FEW), ("many", images::MANY)] {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let database = Database::start("replicas", &folder.join("database.log")).await;
        let database = database.ok_or("PostgreSQL is not installed")?;
        let place = Place {
            data: &folder.join("data"),
            store: Some(Database::url(database.address())),
            lease: None,
        };
        filled.push(Filled::of(Server::start_at(place).await?, images).await?);
        databases.push(database);
    }
    let [few, many] = <[Filled; 2]>::try_from(filled).map_err(|_| "two servers")?;
    images::lists(&mut [few, many], figures).await
}

fn ratio(above: &[f64], below: &[f64]) -> f64 {
    let ratios: Vec<f64> = above
        .iter()
        .zip(below)
        .map(|(above, below)| above / below)
        .collect();
    median(&ratios)
}
