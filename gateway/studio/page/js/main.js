// Starts the Studio's page: tells the state of the server, and starts each part in its region.

import { ApiError, getJson } from "/static/js/api.js";
import { byId } from "/static/js/dom.js";

async function start() {
  const state = byId("server-state");
  try {
    const studio = await getJson("/api/studio");
    state.textContent = studio.version ? `version ${studio.version}` : "";
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    state.textContent = error.message;
  }
}

start();
