// Announcing the desk to its loader.

const apps = new WeakMap();

/** Called by loader.js at the mount and again with every answer; the same element keeps the same desk. */
function openDesk(component) {
  const parent = component.parentElement;
  const root = parent.querySelector(".cd");
  let app = apps.get(root);
  if (!app) {
    app = new App(root, component);
    apps.set(root, app);
  }
  app.component = component;
  app.receive(component.data);
  // Streamlit also runs the cleanup of a call that was overtaken, so only a desk that left the page is ended
  return () => setTimeout(() => root.isConnected || app.destroy(), 200);
}

export default function () {
  globalThis.consiliumDesk = openDesk;
  dispatchEvent(new Event("consilium-desk"));
}
