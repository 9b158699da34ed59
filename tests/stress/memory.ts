/** Memory of this process after everything that is unused has been given back. */
export function residentMiB(): number {
  for (let i = 0; i < 3; i++) globalThis.gc?.();
  return Math.round((process.memoryUsage.rss() / 2 ** 20) * 10) / 10;
}
