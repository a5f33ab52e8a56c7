// The door from Streamlit.

const apps = new WeakMap();

/** Called by Streamlit at the mount and again with every answer; the same element keeps the same desk. */
export default function (component) {
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
