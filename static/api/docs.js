// Shows the OpenAPI document on the page /api/docs. In a file of its own, because pages run no inline script.
(() => {
  const element = document.getElementById("reference");
  window.SwaggerUIBundle({
    url: element.dataset.document,
    domNode: element,
    deepLinking: true,
    docExpansion: "none",
    defaultModelsExpandDepth: 0,
    // The validator badge would ask an outside host.
    validatorUrl: null,
    persistAuthorization: false,
  });
})();
