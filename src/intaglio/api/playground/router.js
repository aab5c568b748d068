// The address: `#/view?field=value&…` is a view and what it shows, so that a link restores it. The token is never in it.

/** {view, fields} of the address. A link without a view is one of the first version's: it fills Complete. */
export function readAddress(views) {
  const hash = location.hash.slice(1);
  if (!hash) return { view: views[0], fields: {} };
  const [, view, query] = /^(?:\/([a-z]*))?\??(.*)$/s.exec(hash);
  const fields = Object.fromEntries(new URLSearchParams(query));
  if (view === undefined) return { view: "complete", fields };
  return views.includes(view) ? { view, fields } : { view: views[0], fields: {} };
}

/** The address of a view; fields with an empty value are left out. */
export function addressOf(view, fields = {}) {
  const query = new URLSearchParams(Object.entries(fields).filter(([, value]) => value !== "").map(([name, value]) => [name, String(value)]));
  return query.size ? `#/${view}?${query}` : `#/${view}`;
}
