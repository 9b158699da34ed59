// ONNX Runtime's C headers for the native build.
//
// No small npm package has them; the package below (ONNX Runtime for Unity, headers under ONNX Runtime's MIT licence)
// does. It is fetched once, checked against a pinned digest, and only the headers are kept, in the build folder.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { SetupError, run } from './run.mjs';

const PACKAGE = 'com.github.asus4.onnxruntime@0.4.9';
const INTEGRITY =
  'sha512-BkzxduSZ9IkeDP6Q8lz2TFU2ie7hSSvS7ZIfzMooExoq0CNzJnuuGaUJ7IsojBgqO4ouD1jXah8OYyJbCN29Fg==';
const HEADERS = 'package/Plugins/iOS~/onnxruntime.xcframework/ios-arm64/onnxruntime.framework/Headers';
const LICENCE = 'package/LICENSE';

/**
 * @param {string} root
 * @returns {string} the folder with onnxruntime_c_api.h
 */
export function ortHeaders(root) {
  const own = process.env.ONNXRUNTIME_INCLUDE_DIR;
  if (own) {
    if (existsSync(join(own, 'onnxruntime_c_api.h'))) return own;
    throw new SetupError(`ONNXRUNTIME_INCLUDE_DIR is '${own}', must be a folder with onnxruntime_c_api.h.`);
  }
  const installed = ['/usr/include/onnxruntime', '/usr/local/include/onnxruntime', '/usr/local/include'].find(
    (folder) => existsSync(join(folder, 'onnxruntime_c_api.h')),
  );
  if (installed) return installed;

  const folder = join(root, 'build/onnxruntime-headers', PACKAGE);
  if (!existsSync(join(folder, 'onnxruntime_c_api.h'))) fetchHeaders(folder);
  return folder;
}

/** @param {string} folder */
function fetchHeaders(folder) {
  console.log(`setup: fetching ONNX Runtime's headers (npm package ${PACKAGE}, 150 MB, once)`);
  const work = `${folder}.${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  try {
    run('npm', ['pack', PACKAGE, '--silent'], { cwd: work });
    const archive = readdirSync(work).find((name) => name.endsWith('.tgz'));
    const bytes = readFileSync(join(work, archive));
    const found = `sha512-${createHash('sha512').update(bytes).digest('base64')}`;
    if (found !== INTEGRITY) {
      throw new SetupError(`npm package ${PACKAGE} has digest ${found}, must have ${INTEGRITY}.`);
    }
    run('tar', ['xzf', archive, HEADERS, LICENCE], { cwd: work });
    renameSync(join(work, LICENCE), join(work, HEADERS, 'LICENSE'));
    mkdirSync(dirname(folder), { recursive: true });
    rmSync(folder, { recursive: true, force: true });
    renameSync(join(work, HEADERS), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
