/** Finds trained models in the model zoo that ZOO_DIR names. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';

/** The zoo's file of this name, wherever its archive put it; `null` where there is none. */
export function zooFile(name: string): string | null {
  const root = process.env['ZOO_DIR'];
  if (root === undefined || !existsSync(root)) return null;
  for (const folder of [root, ...readdirSync(root).map((entry) => path.join(root, entry))]) {
    if (statSync(folder).isDirectory() && existsSync(path.join(folder, name))) return path.join(folder, name);
  }
  return null;
}
