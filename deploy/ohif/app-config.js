// OHIF 3.13 against the Orthanc of compose.yaml, through the same origin (nginx.conf).
(() => {
  // What OHIF itself does for an image that lies nowhere, it does not do for a Segmentation of one, and then draws none.
  const asImagesWithoutPlace = [1, 0, 0, 0, 1, 0];
  const services = {};
  const wetread = {
    id: 'wetread',
    preRegistration: ({ servicesManager }) => {
      Object.assign(services, servicesManager.services);
      const { displaySetService } = services;
      displaySetService.subscribe(displaySetService.EVENTS.DISPLAY_SETS_ADDED, ({ displaySetsAdded }) => {
        for (const { Modality, instance } of displaySetsAdded) {
          if (Modality !== 'SEG' || !instance || instance.FrameOfReferenceUID) {
            continue;
          }
          const shared = [instance.SharedFunctionalGroupsSequence].flat()[0];
          const frames = [instance.PerFrameFunctionalGroupsSequence].flat();
          if (shared && !shared.PlaneOrientationSequence && !frames.some(each => each?.PlaneOrientationSequence)) {
            shared.PlaneOrientationSequence = { ImageOrientationPatient: asImagesWithoutPlace };
          }
        }
      });
    },
  };

  // The words of several findings on one image are written below each other; OHIF writes them over each other.
  const LINE = 18, LETTER = 9, APART = 30; // pixels of the screen
  const MOST_NUMBERED = 9; // of findings of one name: of a hundred cells the words would cover the image
  const counts = {}; // by report and name; OHIF begins with the last
  const written = {}; // by report and image: rectangles of findings, in pixels of the image

  // OHIF may draw before it knows that a report is to be drawn, and then not again until somebody scrolls.
  const waiting = {}; // by report: where words will have been drawn

  function untilDrawn(report, textBox) {
    if (waiting[report]) {
      waiting[report].push(textBox);
      return;
    }
    waiting[report] = [textBox];
    const again = setInterval(() => {
      if (waiting[report].some(each => each.worldBoundingBox)) {
        clearInterval(again);
        return;
      }
      const shown = window.cornerstone.getEnabledElements().map(each => each.viewportId);
      window.cornerstoneTools.utilities.triggerAnnotationRenderForViewportIds(shown);
    }, 500);
  }

  function imageOf({ ReferencedSOPInstanceUID, ReferencedFrameNumber }) {
    for (const { images, instances } of services.displaySetService.getActiveDisplaySets()) {
      const found = (images || instances || []).filter(each => each.SOPInstanceUID === ReferencedSOPInstanceUID);
      if (found.length) {
        return found[Number(ReferencedFrameNumber || 1) - 1] || found[0];
      }
    }
  }

  function place(measurement, report) {
    const { GraphicData, ReferencedSOPSequence, ValueType } = measurement.coords[0] || {};
    const image = ValueType === 'SCOORD' && ReferencedSOPSequence && imageOf(ReferencedSOPSequence);
    if (!image?.imageId || !measurement.labels.length) {
      return;
    }
    const screen = document.querySelector('.cornerstone-canvas')?.getBoundingClientRect() || { width: 950, height: 800 };
    const scale = Math.min(screen.width / image.Columns, screen.height / image.Rows);
    const rows = [], columns = [];
    GraphicData.forEach((each, i) => (i % 2 ? rows : columns).push(each));
    const width = (LETTER * Math.max(...measurement.labels.map(each => `${each.label}: ${each.value}`.length))) / scale;
    const height = (LINE * (measurement.labels.length + 1)) / scale;
    const last = (image.Columns + screen.width / scale) / 2 - width - APART / scale;
    const x = Math.min(Math.max(...columns), last);
    let y = (Math.min(...rows) + Math.max(...rows)) / 2;
    const known = (written[`${report} ${image.imageId}`] ||= []);
    const uid = measurement.TrackingUniqueIdentifier;
    const over = each =>
      each.uid !== uid && x < each.x + each.width && each.x < x + width && y < each.y + each.height && each.y < y + height;
    for (let other = known.find(over); other; other = known.find(over)) {
      y = other.y + other.height;
    }
    known.push({ uid, x, y, width, height });
    measurement.textBox.worldPosition = window.cornerstone.utilities.imageToWorldCoords(image.imageId, [x, y]);
  }

  window.config = {
    routerBasename: '/',
    extensions: [wetread],
    modes: [],
    customizationService: {
      // OHIF writes the numbers of a finding over the image; here also what was found, by its name.
      onBeforeSRAddMeasurement: {
        $set: ({ measurement, SeriesInstanceUID }) => {
          if (measurement.isTold) {
            return measurement; // OHIF asks again for each series of the study
          }
          measurement.isTold = true;
          const name = measurement.TrackingIdentifier;
          const labels = measurement.labels.map(({ label, value }) => ({
            label: label === '363698007' ? 'Finding site' : label,
            value: value.replace(/\.00 1$| \{ratio\}$/, ''), // what has no unit
          }));
          if (name && !labels.some(each => each.label.startsWith(name))) {
            labels.unshift({ label: name, value: '' });
          }
          const [, family, number] = /^(.*) (\d+)$/.exec(name || '') || [];
          const count = (counts[`${SeriesInstanceUID} ${family}`] ||= Number(number || 0));
          measurement.labels = number && count > MOST_NUMBERED ? [] : labels;
          measurement.textBox = {};
          place(measurement, SeriesInstanceUID);
          untilDrawn(SeriesInstanceUID, measurement.textBox);
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
})();
