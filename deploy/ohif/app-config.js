// OHIF 3.13 against the Orthanc of compose.yaml, through the same origin (nginx.conf).
window.config = {
  routerBasename: '/',
  extensions: [],
  modes: [],
  customizationService: {
    // OHIF writes the numbers of a finding over the image; here also what was found, by its name.
    onBeforeSRAddMeasurement: {
      $set: ({ measurement }) => {
        const name = measurement.TrackingIdentifier;
        const labels = measurement.labels.map(each =>
          each.label === '363698007' ? { ...each, label: 'Finding site' } : each
        );
        if (name && !labels.some(each => each.label.startsWith(name))) {
          labels.unshift({ label: name, value: '' });
        }
        measurement.labels = labels;
        return measurement;
      },
    },
  },
  showStudyList: true,
  maxNumberOfWebWorkers: 3,
  showLoadingIndicator: true,
  showWarningMessageForCrossOrigin: true,
  showCPUFallbackMessage: true,
  strictZSpacingForVolumeViewport: true,
  investigationalUseDialog: { option: 'always' },
  defaultDataSourceName: 'dicomweb',
  dataSources: [
    {
      namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
      sourceName: 'dicomweb',
      configuration: {
        friendlyName: 'Orthanc',
        name: 'orthanc',
        wadoUriRoot: '/dicom-web',
        qidoRoot: '/dicom-web',
        wadoRoot: '/dicom-web',
        qidoSupportsIncludeField: false,
        supportsReject: false,
        supportsStow: false,
        imageRendering: 'wadors',
        thumbnailRendering: 'wadors',
        enableStudyLazyLoad: true,
        supportsFuzzyMatching: false,
        supportsWildcard: true,
        dicomUploadEnabled: false,
        omitQuotationForMultipartRequest: true,
        bulkDataURI: { enabled: true, relativeResolution: 'studies' },
      },
    },
  ],
};
