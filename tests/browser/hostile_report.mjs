// An audit of the emoji models in which every name is written to run as code where it is not escaped.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const REPOSITORY = path.resolve(import.meta.dirname, '../..');
const EMOJI = path.join(REPOSITORY, 'fixtures/data/emoji');

/** The built program; without it there is nothing to audit with. */
export const PROGRAM = process.env.COMPAT_AUDIT ?? path.join(REPOSITORY, 'target/release/compat-audit');

const CODES = [
  '<img src=x onerror="window.pwned=1">',
  '"><svg onload="window.pwned=1">',
  "'-window.pwned-'",
  '</title></style></script><script>window.pwned=1</script>',
  '</text></svg><iframe src="javascript:window.pwned=1">',
  '{{ 7*7 }}{% raw %}&lt;b&gt;',
];

/** Makes the report and returns its folder, which the caller removes; `null` where the program is not built. */
export function hostileReport() {
  if (!existsSync(PROGRAM)) {
    return null;
  }
  const folder = mkdtempSync(path.join(os.tmpdir(), 'hostile-'));
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = readFileSync(path.join(EMOJI, 'labels.csv'), 'utf8').trim().split('\n').slice(1);
  const manifest = rows.map((row, index) => {
    const [picture, identity, camera, role] = row.split(',');
    // One code an identity and one a camera, else nothing would match.
    const code = (name) => CODES[[...name].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % CODES.length] + name;
    const cells = [path.join(EMOJI, picture), CODES[index % CODES.length] + picture, code(identity), code(camera), role, CODES[index % CODES.length]];
    return cells.map(quoted).join(',');
  });
  const column = quoted('<script>window.pwned=1</script>');
  writeFileSync(path.join(folder, 'labels.csv'), [`path,id,identity,camera,role,${column}`, ...manifest].join('\n'));
  copyFileSync(path.join(EMOJI, 'audit.toml'), path.join(folder, 'audit.toml'));
  const model = path.join(folder, 'new"><svg onload="window.pwned=1">.onnx');
  copyFileSync(path.join(EMOJI, 'new_bct_near.onnx'), model);
  const out = path.join(folder, 'report');
  try {
    execFileSync(PROGRAM, [path.join(EMOJI, 'old.onnx'), model, path.join(folder, 'labels.csv'), '--out', out, '--quiet'], { stdio: 'pipe' });
  } catch (error) {
    // 1 is a backfill's exit code, 3 an inconclusive one's.
    if (![1, 3].includes(error.status)) {
      throw new Error(`the audit of hostile names failed: ${error.stderr}`);
    }
  }
  return out;
}
