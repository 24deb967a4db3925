// An application on node-postgres, for test/t/070_clients.pl.
//
//     node node_postgres_app.js direct|pooled PORT HOST DATABASE NAME
//
// Kinds and output as in psycopg2_app.py.
'use strict';

const { Client, Pool } = require('pg');

const PATIENCE_MS = 300000;
const TERMINAL = ['completed', 'failed', 'timeout', 'cancelled'];
const [kind, port, host, database, name] = process.argv.slice(2);
const where = { host, port: Number(port), database, user: process.env.PGUSER };

function say(...words) {
    console.log(words.map((word) => String(word).replace(/[\n\t]/g, ' ')).join('\t'));
}

function check(good, what, seen = '') {
    say(good ? 'ok' : 'not ok', `${name}: ${what}`, good ? '' : seen);
}

function checkIs(seen, expected, what) {
    const [a, b] = [JSON.stringify(seen), JSON.stringify(expected)];
    check(a === b, what, `saw ${a}, expected ${b}`);
}

async function connect() {
    const client = new Client(where);
    await client.connect();
    return client;
}

async function waitUntil(look, what) {
    const deadline = Date.now() + PATIENCE_MS;
    while (!(await look())) {
        if (Date.now() > deadline) {
            check(false, what, `not within ${PATIENCE_MS} ms`);
            return;
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
    }
}

// The driver's prepared statements need a session; behind a pooler the same
// texts go without a name, parsed each time.
function statement(label, text, values) {
    return kind === 'direct' ? { name: label, text, values } : { text, values };
}

// ------------------------------------------------- what both kinds do

const SUBMIT = 'SELECT cm_submit_job($1, args => $2, environment => $3, labels => $4) AS id';

async function submit(client, args, environment = {}) {
    const result = await client.query(
        statement('submit', SUBMIT, ['busybox:test', args, environment, { app: name }]));
    return result.rows[0].id; // int8 is a string in this driver
}

async function submitWithOwnData(order) {
    const [app, other] = [await connect(), await connect()];
    const count = async (job) =>
        (await other.query('SELECT count(*) FROM cm_jobs WHERE id = $1', [job])).rows[0].count;
    await app.query('BEGIN');
    const job = await submit(app, ['sh', '-c', 'echo "$WORD"'], { WORD: 'it\'s "ü" \\ $1', N: 5 });
    await app.query('INSERT INTO orders VALUES ($1, $2)', [order, job]);
    checkIs(await count(job), '0', 'a job that is not committed is not seen');
    await app.query('COMMIT');
    checkIs(await count(job), '1', 'it is after the commit');
    await app.end();
    await other.end();
    return job;
}

async function rollBack(order) {
    const app = await connect();
    await app.query('BEGIN');
    const job = await submit(app, ['echo', 'never']);
    await app.query('INSERT INTO orders VALUES ($1, $2)', [order, job]);
    await app.query('ROLLBACK');
    say('rolled back', job);
    const own = await app.query('SELECT count(*) FROM orders WHERE id = $1', [order]);
    checkIs(own.rows[0].count, '0', 'own row rolled back');

    // A transaction whose client goes away.
    await app.query('BEGIN');
    say('rolled back', await submit(app, ['echo', 'never']));
    await app.end();
}

async function call() {
    const app = await connect();
    const text = 'CALL cm_run_job($1, $2)';
    for (const word of ['one', 'two']) {
        const result = await app.query(
            statement('run', text, ['busybox:test', `echo ${word}; exit 3`]));
        const row = result.rows[0];
        checkIs([row.status, row.exit_code, row.output], ['failed', 3, `${word}\n`],
            `CALL cm_run_job gives back status, exit code and output: ${word}`);
        check(/^[0-9]+$/.test(row.job_id), 'and the id of its job', row.job_id);
    }
    await app.query('BEGIN');
    try {
        await app.query(text, ['busybox:test', 'echo never']);
        check(false, 'CALL in a transaction block fails', 'no error');
    } catch (error) {
        checkIs(error.code, '25001', 'CALL in a transaction block fails');
        check(/cm_submit_job/.test(error.hint), 'with a hint', error.hint);
    }
    await app.query('ROLLBACK');
    const result = await app.query({ text: 'CALL cm_run_job($1, args => $2)',
        values: ['busybox:test', ['echo', 'again']] });
    checkIs(result.rows[0].output, 'again\n', 'and works again after it');
    await app.end();
}

async function outputIsEqual() {
    const app = await connect();
    // The engine's log replaces what is not UTF-8; all else must come back as it was.
    const characters = Buffer.concat([Buffer.from(Array.from({ length: 128 }, (_, i) => i)),
        Buffer.from('é€𝄞\u0085\ufeff'.repeat(50))]);
    const octal = Array.from(characters, (byte) => '\\' + byte.toString(8).padStart(3, '0')).join('');
    const ran = await app.query('CALL cm_run_job($1, $2)', ['busybox:test', `printf '${octal}'`]);
    const read = await app.query('SELECT cm_job_output_bytes($1) AS bytes', [ran.rows[0].job_id]);
    check(characters.equals(read.rows[0].bytes), 'bytes come back as they were written',
        read.rows[0].bytes && read.rows[0].bytes.toString('hex'));
    await app.end();
}

async function errorsTell() {
    const app = await connect();
    const cases = [
        ['22023', 'image', 'SELECT cm_submit_job($1)', ['']],
        ['22023', 'memory_limit', "SELECT cm_submit_job('busybox:test', memory_limit => $1)", [-1]],
        ['42704', 'host', "SELECT cm_submit_job('busybox:test', host => $1)", ['nowhere']],
        ['22023', 'environment', 'INSERT INTO cm_jobs (image, environment) VALUES ($1, $2)',
            ['busybox:test', { 'a b': 'x' }]],
    ];
    for (const [sqlstate, column, text, values] of cases) {
        try {
            await app.query(text, values);
            check(false, `refused: ${column}`, 'no error');
        } catch (error) {
            checkIs([error.code, error.column], [sqlstate, column], `SQLSTATE and column: ${text}`);
        }
    }
    await app.end();
}

// Many at a time over the driver's own pool, each with its arguments.
async function manyAtOnce() {
    const pool = new Pool({ ...where, max: 4 });
    const numbers = Array.from({ length: 10 }, (_, n) => n);
    const jobs = await Promise.all(numbers.map((n) => submit(pool, ['echo', String(n)])));
    await pool.end();
    return jobs;
}

async function outputs(jobs) {
    const app = await connect();
    const seen = [];
    for (const job of jobs)
        seen.push((await app.query('SELECT cm_job_output($1) AS text', [job])).rows[0].text);
    await app.end();
    return seen;
}

const isOver = (states) => states.length > 0 && TERMINAL.includes(states[states.length - 1]);
const isWhole = (states) => states.join() === 'launching,running,completed';

async function lastEvent() {
    const app = await connect();
    const result = await app.query('SELECT coalesce(max(seq), 0) AS seq FROM cm_job_events');
    await app.end();
    return result.rows[0].seq;
}

async function followEvents(jobs, after) {
    const app = await connect();
    const seen = Object.fromEntries(jobs.map((job) => [job, []]));
    let last = after;
    await waitUntil(async () => {
        const result = await app.query(
            'SELECT seq, job_id, status FROM cm_job_events WHERE seq > $1 ORDER BY seq', [last]);
        for (const row of result.rows) {
            last = row.seq;
            if (row.job_id in seen)
                seen[row.job_id].push(row.status);
        }
        return Object.values(seen).every(isOver);
    }, 'all jobs are over by their events');
    await app.end();
    return seen;
}

// ------------------------------------------------- with a session of its own

async function listen() {
    const listener = await connect();
    const seen = {};
    const seqs = [];
    listener.on('notification', (message) => {
        const payload = JSON.parse(message.payload);
        seqs.push(payload.seq);
        (seen[payload.job_id] = seen[payload.job_id] || []).push(payload.status);
    });
    await listener.query('LISTEN cm_job_status');
    const job = await submitWithOwnData(`${name} listened`);
    await rollBack(`${name} taken back`);
    const jobs = await manyAtOnce();
    await waitUntil(() => [job, ...jobs].every((id) => id in seen && isOver(seen[id])),
        'all jobs are over by their notifications');
    check([job, ...jobs].every((id) => isWhole(seen[id] || [])), 'LISTEN tells every transition', JSON.stringify(seen));
    check(seqs.every((seq, i) => i === 0 || seq > seqs[i - 1]), 'in order, once', seqs);
    checkIs(await outputs([job]), ['it\'s "ü" \\ $1\n'], 'its output');
    checkIs(await outputs(jobs), jobs.map((_, n) => `${n}\n`), 'each has its own output');
    await listener.end();
}

async function direct() {
    await listen();
    await call();
    await outputIsEqual();
    await errorsTell();
}

// ------------------------------------------------- behind a pooler

async function pooled() {
    const before = await lastEvent();
    const job = await submitWithOwnData(`${name} 1`);
    await rollBack(`${name} 2`);
    const jobs = await manyAtOnce();
    const seen = await followEvents([job, ...jobs], before);
    check(Object.values(seen).every(isWhole), 'cm_job_events has every transition of every job, in order',
        JSON.stringify(seen));
    checkIs(await outputs(jobs), jobs.map((_, n) => `${n}\n`), 'each has its own output');
    await call();
    await outputIsEqual();
    await errorsTell();
}

({ direct, pooled })[kind]().then(() => say('done'), (error) => {
    check(false, 'no unexpected error', error.stack);
    process.exitCode = 1;
});
