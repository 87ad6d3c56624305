"""The limit of a server: one transaction for a step, as pgbench or, where there is none, a loop of psycopg commits it."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

from agentops.benchmarks.agents import PAYLOAD
from agentops.services import ServicesFailure
from agentops.services.programs import postgres_programs
from runs.engine.canonical import dumps

RUNS = 10_000
TABLES = f"""
DROP TABLE IF EXISTS bench_limit_event, bench_limit_run;
CREATE TABLE bench_limit_run (
  id bigint PRIMARY KEY, status text NOT NULL DEFAULT 'queued', last_seq int NOT NULL DEFAULT 0,
  at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE TABLE bench_limit_event (
  id bigserial PRIMARY KEY, run_id bigint NOT NULL, seq int NOT NULL, kind text NOT NULL, data jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON bench_limit_event (run_id, seq);
INSERT INTO bench_limit_run (id) SELECT generate_series(1, {RUNS});
VACUUM ANALYZE bench_limit_run
"""
INSERT = "INSERT INTO bench_limit_event (run_id, seq, kind, data) VALUES ({run}, 1, 'step', '{data}'::jsonb)"
UPDATE = "UPDATE bench_limit_run SET last_seq = last_seq + 1, status = 'running', at = now() WHERE id = {run}"
SCRIPT = f"\\set run random(1, {RUNS})\nBEGIN;\n{INSERT};\n{UPDATE};\nCOMMIT;\n"


class Limit:
    """Transactions per second that this server commits, with as many clients as asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.program = seconds, _pgbench()
        said = subprocess.run([self.program, "--version"], check=True, capture_output=True, text=True) if self.program else None
        self.means = said.stdout.strip() if said else "a loop of psycopg, because no pgbench was found"

    def rate(self, clients: int) -> float:
        with _connect() as database:
            for statement in TABLES.split(";"):
                database.execute(statement)
        return self._pgbench(clients) if self.program else self._loop(clients)

    def _pgbench(self, clients: int) -> float:
        with tempfile.TemporaryDirectory() as directory:
            script = Path(directory) / "step.sql"
            script.write_text(SCRIPT.format(run=":run", data=dumps(PAYLOAD)))
            how = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(max(1, round(self.seconds)))]
            command = [str(self.program), *how, "-f", str(script), _url()]
            said = subprocess.run(command, check=False, capture_output=True, text=True)
        found = re.search(r"^tps = ([0-9.]+)", said.stdout, re.MULTILINE)
        if not found:
            raise RuntimeError(f"pgbench measured nothing: {said.stderr.strip()}")
        return float(found.group(1))

    def _loop(self, clients: int) -> float:
        counts, begun = [0] * clients, time.perf_counter()
        threads = [threading.Thread(target=_transactions, args=(counts, place, begun + self.seconds)) for place in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(counts) / (time.perf_counter() - begun)


def _transactions(counts: list[int], place: int, end: float) -> None:
    insert, update, data = INSERT.format(run="%s", data="%s").replace("'%s'", "%s"), UPDATE.format(run="%s"), dumps(PAYLOAD)
    with _connect() as database:
        while time.perf_counter() < end:
            run = (place * 997 + counts[place]) % RUNS + 1
            with database.transaction():
                database.execute(insert, [run, data], prepare=True)
                database.execute(update, [run], prepare=True)
            counts[place] += 1


def _connect() -> psycopg.Connection[Any]:
    return psycopg.connect(_url(), autocommit=True)


def _url() -> str:
    """Of the database that is measured: the tests' is not the one that DATABASE_URL names."""
    parameters = connection.get_connection_params()
    names = ("host", "port", "user", "password", "dbname")
    return psycopg.conninfo.make_conninfo(**{name: parameters[name] for name in names if parameters.get(name)})


def _pgbench() -> str | None:
    try:
        beside = postgres_programs() / "pgbench"
    except ServicesFailure:
        return shutil.which("pgbench")
    return str(beside) if os.access(beside, os.X_OK) else shutil.which("pgbench")
